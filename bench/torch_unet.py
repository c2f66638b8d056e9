"""The UNet of Stable Diffusion 1.x in plain torch modules, as a peer: same weights, same steps.

    python3 torch_unet.py --unet FOLDER --task FILE.safetensors [--steps 50 --guided 10 --iterations 4]

FOLDER holds config.json and one fp16 safetensors file, named as diffusers does. The task holds
  z [1, 4, h, w], states [1, 77, text], timestep [1], tokens [n], region [n] (of each token), rho [1],
  for each guided site i: mask.i [regions, cells] and prior.i [regions, cells] (log, below -1e30 outside),
  output and grad: what winwinlay found.
Prints one JSON object: errors against that in float32, then seconds in fp16 with SDPA on a GPU
(float32 on a CPU): per denoising step of both prompts, per guided step, and for all steps of a picture.
"""

import argparse
import json
import math
import mmap
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

TYPES = {"F16": torch.float16, "F32": torch.float32}


def read_safetensors(path):
    """Name -> tensor, on the CPU."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        kind = TYPES[about["dtype"]]
        start, end = about["data_offsets"]
        count = (end - start) // torch.empty((), dtype=kind).element_size()
        flat = torch.frombuffer(data, dtype=kind, count=count, offset=8 + size + start)
        found[name] = flat.reshape(about["shape"])
    return found


class Probe:
    """Asks guided sites for the log-probabilities of tokens, and ends the gradient at the last one."""

    def __init__(self, sites, tokens):
        self.sites, self.tokens, self.maps = sites, tokens, []

    def take(self, log_probs):
        self.maps.append(log_probs[..., self.tokens])
        if len(self.maps) == len(self.sites):
            torch.set_grad_enabled(False)  # the rest only gives the noise


class Attention(nn.Module):
    def __init__(self, channels, text, heads):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(text, channels, bias=False)
        self.to_v = nn.Linear(text, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x, keys, probe=None):
        def split(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.to_q(x)), split(self.to_k(keys)), split(self.to_v(keys))
        if probe is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1])
            log_probs = scores.log_softmax(-1)
            probe.take(log_probs)
            y = log_probs.exp().to(v.dtype) @ v
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class GeGlu(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, x):
        hidden, gate = self.proj(x).chunk(2, -1)
        return hidden * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.net = nn.ModuleList([GeGlu(channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    def __init__(self, channels, text, heads):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.attn1 = Attention(channels, channels, heads)
        self.attn2 = Attention(channels, text, heads)
        self.ff = FeedForward(channels)

    def forward(self, x, text, probe):
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), text, probe)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    def __init__(self, channels, text, heads, groups, site):
        super().__init__()
        self.site = site + ".transformer_blocks.0.attn2"
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([Block(channels, text, heads)])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x, text, probe):
        h = self.proj_in(self.norm(x))
        space = h.shape[2:]
        own = probe if probe and self.site in probe.sites else None
        h = self.transformer_blocks[0](h.flatten(2).transpose(1, 2), text, own)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, space))


class Resnet(nn.Module):
    def __init__(self, source, to, time, groups, eps):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, source, eps=eps)
        self.conv1 = nn.Conv2d(source, to, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, to)
        self.norm2 = nn.GroupNorm(groups, to, eps=eps)
        self.conv2 = nn.Conv2d(to, to, 3, padding=1)
        if source != to:
            self.conv_shortcut = nn.Conv2d(source, to, 1)

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Resample(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1)


class Stage(nn.Module):
    def __init__(self, resnets, attentions, down=None, up=None):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([Resample(down, 2)] if down else [])
        self.upsamplers = nn.ModuleList([Resample(up, 1)] if up else [])


class TimeEmbedding(nn.Module):
    def __init__(self, channels, time):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(channels, time), nn.Linear(time, time)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Unet(nn.Module):
    """diffusers' UNet2DConditionModel as far as SD1.x uses it, under its parameter names."""

    def __init__(self, config):
        super().__init__()
        widths, layers = config["block_out_channels"], config["layers_per_block"]
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        text, heads, time = config["cross_attention_dim"], config["attention_head_dim"], 4 * widths[0]
        assert isinstance(heads, int) and "addition_embed_type" not in config, "SD1.x only"

        def res(source, to):
            return Resnet(source, to, time, groups, eps)

        def attend(site, count, width):
            return [Transformer(width, text, heads, groups, f"{site}.attentions.{j}") for j in range(count)]

        self.width = widths[0]
        self.time_embedding = TimeEmbedding(widths[0], time)
        self.conv_in = nn.Conv2d(config["in_channels"], widths[0], 3, padding=1)
        skips, source, down, up = [widths[0]], widths[0], [], []
        for i, (kind, to) in enumerate(zip(config["down_block_types"], widths)):
            last = i == len(widths) - 1
            resnets = [res(to if j else source, to) for j in range(layers)]
            count = layers if kind.startswith("CrossAttn") else 0
            down.append(Stage(resnets, attend(f"down_blocks.{i}", count, to), down=None if last else to))
            skips += [to] * (layers + (0 if last else 1))
            source = to
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = Stage([res(source, source) for _ in range(2)], attend("mid_block", 1, source))
        for i, (kind, to) in enumerate(zip(config["up_block_types"], reversed(widths))):
            resnets = []
            for _ in range(layers + 1):
                resnets.append(res(source + skips.pop(), to))
                source = to
            count = layers + 1 if kind.startswith("CrossAttn") else 0
            last = i == len(widths) - 1
            up.append(Stage(resnets, attend(f"up_blocks.{i}", count, to), up=None if last else to))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps=eps)
        self.conv_out = nn.Conv2d(widths[0], config["out_channels"], 3, padding=1)

    def embed(self, timestep, like):
        half = self.width // 2
        angles = timestep * torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        waves = torch.cat([angles.cos(), angles.sin()])[None]
        return F.silu(self.time_embedding(waves.to(like.device, like.dtype)))

    def forward(self, x, timestep, text, probe=None):
        time = self.embed(timestep, x)
        x = self.conv_in(x)
        skips = [x]
        for stage in self.down_blocks:
            for j, resnet in enumerate(stage.resnets):
                x = resnet(x, time)
                if stage.attentions:
                    x = stage.attentions[j](x, text, probe)
                skips.append(x)
            for resample in stage.downsamplers:
                x = resample.conv(x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, time)
        x = self.mid_block.attentions[0](x, text, probe)
        x = self.mid_block.resnets[1](x, time)
        for stage in self.up_blocks:
            for j, resnet in enumerate(stage.resnets):
                x = resnet(torch.cat([x, skips.pop()], 1), time)
                if stage.attentions:
                    x = stage.attentions[j](x, text, probe)
            for resample in stage.upsamplers:
                x = resample.conv(F.interpolate(x, size=skips[-1].shape[2:], mode="nearest"))
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def energy(maps, task, rho):
    """Mean over sites and regions of the mean over tokens and heads of (1 - f)^2 + rho KL(a in box, prior)."""
    region = task["region"].long()
    total = 0
    for i, log_probs in enumerate(maps):  # [1, heads, cells, tokens]
        a = log_probs[0].transpose(-1, -2)  # [heads, tokens, cells]
        mask, prior = task[f"mask.{i}"][region], task[f"prior.{i}"][region]
        p = a.exp()
        share = (p * mask).sum(-1) / p.sum(-1)
        inside = prior > -1e30
        hat = a.masked_fill(~inside, -math.inf).log_softmax(-1)
        kl = torch.where(inside, hat.exp() * (hat - prior).masked_fill(~inside, 0), 0.0).sum(-1)
        each = ((1 - share) ** 2 + rho * kl).mean(0)  # [tokens]
        per_region = [each[region == r].mean() for r in region.unique()]
        total = total + torch.stack(per_region).mean() / len(maps)
    return total


def guided(unet, z, task, sites, rho):
    """Noise and the energy's gradient on the latent: one forward, backward from the last guided site."""
    z = z.detach().requires_grad_()
    probe = Probe(sites, task["tokens"].long())
    with torch.enable_grad():  # restores what the probe switches off
        noise = unet(z, int(task["timestep"]), task["states"].to(z.dtype), probe)
    with torch.enable_grad():
        value = energy(probe.maps, task, rho)
    (grad,) = torch.autograd.grad(value, z)
    return noise.detach(), grad


def guided_sites(config):
    """Cross-attention of the middle and of the first block on the way up that has any."""
    first = next(i for i, kind in enumerate(config["up_block_types"]) if kind.startswith("CrossAttn"))
    names = ["mid_block.attentions.0"]
    names += [f"up_blocks.{first}.attentions.{j}" for j in range(config["layers_per_block"] + 1)]
    return [f"{name}.transformer_blocks.0.attn2" for name in names]


def picture(unet, task, sites, rho, steps, guided_steps, iterations, sync):
    """Seconds of each step. The updates have the form of DDIM and Langevin; sizes are kept in bounds."""
    z, states = task["z"].to(unet.conv_in.weight.dtype), task["states"].to(unet.conv_in.weight.dtype)
    both = torch.cat([torch.zeros_like(states), states])
    seconds = {"plain": [], "guided": []}
    for step in range(steps):
        start = time.perf_counter()
        kind = "guided" if step < guided_steps else "plain"
        for _ in range(iterations if kind == "guided" else 0):
            noise, grad = guided(unet, z, task, sites, rho)
            scale = noise.float().norm() / (grad.float().norm() + 1e-12)
            z = z - 0.01 * (noise + (scale * grad.float()).to(z.dtype)) + 0.01 * torch.randn_like(z)
        u, c = unet(torch.cat([z, z]), int(task["timestep"]), both).chunk(2)
        z = z - 0.01 * (u + 7.5 * (c - u))
        z = z / z.float().std().to(z.dtype)
        sync()
        seconds[kind].append(time.perf_counter() - start)
    return seconds


def relative(found, expected):
    expected = expected.to(found.device, torch.float64)
    return float((found.double() - expected).norm() / expected.norm())


def matmul_rate(device, kind, sync, size):
    """TFLOP/s of one large product."""
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        a @ b
    sync()
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        for _ in range(8):
            a @ b
        sync()
        runs += 8
    return runs * 2 * size**3 / (time.perf_counter() - start) / 1e12


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unet", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guided", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=4)
    options = parser.parse_args()

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    sync = torch.cuda.synchronize if cuda else (lambda: None)
    with open(os.path.join(options.unet, "config.json")) as file:
        config = json.load(file)
    (weights,) = (f for f in os.listdir(options.unet) if f.endswith(".safetensors"))
    state = read_safetensors(os.path.join(options.unet, weights))
    unet = Unet(config)
    shapes = {name: x.shape for name, x in unet.state_dict().items()}
    unet.load_state_dict({name: x.float().reshape(shapes[name]) for name, x in state.items()})
    del state
    unet.to(device).requires_grad_(False)
    task = {name: x.to(device) for name, x in read_safetensors(options.task).items()}
    sites, rho = guided_sites(config), float(task["rho"])

    # In float32 without TF32, where torch and winwinlay must agree.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        noise, grad = guided(unet, task["z"], task, sites, rho)
    errors = {"output": relative(noise, task["output"]), "grad": relative(grad, task["grad"])}
    del noise, grad

    kind = torch.float16 if cuda else torch.float32
    unet.to(kind)
    torch.backends.cudnn.benchmark = True
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        how = dict(iterations=options.iterations, sync=sync)
        picture(unet, task, sites, rho, 2 if cuda else 1, 1 if options.guided else 0, **how)  # warms up
        start = time.perf_counter()
        seconds = picture(unet, task, sites, rho, options.steps, options.guided, **how)
        whole = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() if cuda else None  # before the large product
        rate = matmul_rate(device, kind, sync, 8192 if cuda else 1024)
    json.dump(
        {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "dtype": str(kind).removeprefix("torch."),
            "errors": errors,
            "plainStepSeconds": seconds["plain"],
            "guidedStepSeconds": seconds["guided"],
            "imageSeconds": whole,
            "matmulTflops": rate,
            "peakBytes": peak,
        },
        sys.stdout,
    )
    print()


if __name__ == "__main__":
    main()
