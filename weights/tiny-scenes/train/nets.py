"""Stable Diffusion 1.5's networks in small, with diffusers' and transformers' parameter names.

Each is built from the keys of its config.json, so that what is trained here is a diffusers folder.
"""
from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class ResnetBlock2D(nn.Module):
    def __init__(self, cin: int, cout: int, temb: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, cin, eps), nn.GroupNorm(groups, cout, eps)
        self.conv1, self.conv2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
        if temb:
            self.time_emb_proj = nn.Linear(temb, cout)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """temb has passed its SiLU already."""
        h = self.conv1(F.silu(self.norm1(x)))
        if temb is not None:
            h = h + self.time_emb_proj(temb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample2D(nn.Module):
    def __init__(self, c: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.conv.padding == (0, 0) else x)


class Upsample2D(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Set ``keep`` to have ``maps`` [batch, queries, keys] after a call: probabilities, mean over heads."""

    def __init__(self, c: int, context: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(c, c, bias=bias)
        self.to_k = nn.Linear(context, c, bias=bias)
        self.to_v = nn.Linear(context, c, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(c, c)])
        self.keep = False
        self.maps: Tensor | None = None

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        def split(t: Tensor) -> Tensor:
            return t.unflatten(2, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        if self.keep:
            p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
            self.maps, out = p.mean(1), p @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.proj = nn.Linear(c, 8 * c)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(c), nn.Identity(), nn.Linear(4 * c, c))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class BasicTransformerBlock(nn.Module):
    def __init__(self, c: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(c), nn.LayerNorm(c), nn.LayerNorm(c)
        self.attn1, self.attn2 = Attention(c, c, heads), Attention(c, context, heads)
        self.ff = FeedForward(c)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    def __init__(self, c: int, context: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, 1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(c, c, 1), nn.Conv2d(c, c, 1)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(c, context, heads)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        y = self.transformer_blocks[0](y, context)
        return x + self.proj_out(y.transpose(1, 2).unflatten(2, x.shape[2:]))


class Block(nn.Module):
    """A level: resnets, perhaps an attention after each, perhaps a resampler."""

    def __init__(self, resnets: list[nn.Module], attentions: list[nn.Module] = [],
                 down: nn.Module | None = None, up: nn.Module | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions) if attentions else None
        self.downsamplers = nn.ModuleList([down]) if down else None
        self.upsamplers = nn.ModuleList([up]) if up else None


class TimestepEmbedding(nn.Module):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(cin, cout), nn.Linear(cout, cout)

    def forward(self, t: Tensor) -> Tensor:
        half = self.linear_1.in_features // 2
        a = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
        return self.linear_2(F.silu(self.linear_1(torch.cat([a.cos(), a.sin()], -1))))


class UNet2DConditionModel(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config = config
        ch, layers, groups = config["block_out_channels"], config["layers_per_block"], config["norm_num_groups"]
        temb = 4 * ch[0]

        def res(cin: int, cout: int) -> ResnetBlock2D:
            return ResnetBlock2D(cin, cout, temb, groups, config["norm_eps"])

        def att(kind: str, c: int, count: int) -> list[nn.Module]:
            context, heads = config["cross_attention_dim"], config["attention_head_dim"]
            return [Transformer2DModel(c, context, heads, groups) for _ in range(count) if "CrossAttn" in kind]

        self.conv_in = nn.Conv2d(config["in_channels"], ch[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(ch[0], temb)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, cin, last = [ch[0]], ch[0], len(ch) - 1
        for i, (kind, c) in enumerate(zip(config["down_block_types"], ch)):
            resnets = [res(cin if j == 0 else c, c) for j in range(layers)]
            self.down_blocks.append(Block(resnets, att(kind, c, layers), down=Downsample2D(c, 1) if i < last else None))
            skips += [c] * (layers + (i < last))
            cin = c
        self.mid_block = Block([res(cin, cin), res(cin, cin)], att("CrossAttn", cin, 1))
        for i, (kind, c) in enumerate(zip(config["up_block_types"], reversed(ch))):
            resnets = []
            for _ in range(layers + 1):
                resnets.append(res(cin + skips.pop(), c))
                cin = c
            self.up_blocks.append(Block(resnets, att(kind, c, layers + 1), up=Upsample2D(c) if i < last else None))
        self.conv_norm_out = nn.GroupNorm(groups, ch[0], config["norm_eps"])
        self.conv_out = nn.Conv2d(ch[0], config["out_channels"], 3, padding=1)

    def guided(self) -> list[Attention]:
        """The cross-attentions that layout guidance reads: middle and first up block with attention."""
        up = next(b for b in self.up_blocks if b.attentions is not None)
        return [t.transformer_blocks[0].attn2 for t in [*self.mid_block.attentions, *up.attentions]]

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The noise in x [b, 4, h, w] at timesteps t [b], given text states [b, 77, c]."""
        temb = F.silu(self.time_embedding(t.expand(len(x))))
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            for j, resnet in enumerate(block.resnets):
                x = resnet(x, temb)
                x = block.attentions[j](x, context) if block.attentions else x
                skips.append(x)
            if block.downsamplers:
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.resnets[0](x, temb)
        x = self.mid_block.attentions[0](x, context)
        x = self.mid_block.resnets[1](x, temb)
        for block in self.up_blocks:
            for j, resnet in enumerate(block.resnets):
                x = resnet(torch.cat([x, skips.pop()], 1), temb)
                x = block.attentions[j](x, context) if block.attentions else x
            x = block.upsamplers[0](x) if block.upsamplers else x
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VaeAttention(Attention):
    def __init__(self, c: int, groups: int) -> None:
        super().__init__(c, c, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, c, 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        return x + super().forward(y, y).transpose(1, 2).unflatten(2, x.shape[2:])


class Coder(nn.Module):
    """The autoencoder's encoder (``down``) or decoder."""

    def __init__(self, config: dict, down: bool) -> None:
        super().__init__()
        ch, layers, groups = config["block_out_channels"], config["layers_per_block"], config["norm_num_groups"]
        latent, order = config["latent_channels"], ch if down else ch[::-1]

        def res(cin: int, cout: int) -> ResnetBlock2D:
            return ResnetBlock2D(cin, cout, 0, groups, 1e-6)

        self.conv_in = nn.Conv2d(config["in_channels"] if down else latent, order[0], 3, padding=1)
        blocks, cin = [], order[0]
        for i, c in enumerate(order):
            resnets = [res(cin if j == 0 else c, c) for j in range(layers + (not down))]
            more = i < len(order) - 1
            blocks.append(Block(resnets, down=Downsample2D(c, 0) if down and more else None,
                                up=Upsample2D(c) if not down and more else None))
            cin = c
        self.add_module("down_blocks" if down else "up_blocks", nn.ModuleList(blocks))
        self.mid_block = Block([res(ch[-1], ch[-1]), res(ch[-1], ch[-1])], [VaeAttention(ch[-1], groups)])
        self.conv_norm_out = nn.GroupNorm(groups, order[-1], 1e-6)
        self.conv_out = nn.Conv2d(order[-1], 2 * latent if down else config["out_channels"], 3, padding=1)
        self.down = down

    def mid(self, x: Tensor) -> Tensor:
        m = self.mid_block
        return m.resnets[1](m.attentions[0](m.resnets[0](x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        x = x if self.down else self.mid(x)
        for block in self.down_blocks if self.down else self.up_blocks:
            for resnet in block.resnets:
                x = resnet(x)
            for sampler in block.downsamplers or block.upsamplers or []:
                x = sampler(x)
        x = self.mid(x) if self.down else x
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class AutoencoderKL(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config, n = config, config["latent_channels"]
        self.encoder, self.decoder = Coder(config, True), Coder(config, False)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * n, 2 * n, 1), nn.Conv2d(n, n, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latent's mean and log variance (unscaled)."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))


class ClipAttention(nn.Module):
    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(c, c) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class ClipLayer(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        c, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.self_attn = ClipAttention(c, config["num_attention_heads"])
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c, eps), nn.LayerNorm(c, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(c, inner), "fc2": nn.Linear(inner, c)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        h = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))  # quick_gelu


class CLIPTextModel(nn.Module):
    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config, c = config, config["hidden_size"]
        self.text_model = nn.ModuleDict({
            "embeddings": nn.ModuleDict({
                "token_embedding": nn.Embedding(config["vocab_size"], c),
                "position_embedding": nn.Embedding(config["max_position_embeddings"], c)}),
            "encoder": nn.ModuleDict({
                "layers": nn.ModuleList(ClipLayer(config) for _ in range(config["num_hidden_layers"]))}),
            "final_layer_norm": nn.LayerNorm(c, config["layer_norm_eps"])})
        nn.init.normal_(self.text_model["embeddings"]["token_embedding"].weight, std=0.05)
        nn.init.normal_(self.text_model["embeddings"]["position_embedding"].weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Text states [b, n, c] of token ids [b, n]."""
        m = self.text_model
        x = m["embeddings"]["token_embedding"](ids) + m["embeddings"]["position_embedding"].weight[: ids.shape[1]]
        for layer in m["encoder"]["layers"]:
            x = layer(x)
        return m["final_layer_norm"](x)


# --- diffusers folders -----------------------------------------------------------------------------------------

WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
           "text_encoder": "model.safetensors"}
MODELS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def load_model(root: Path, part: str) -> nn.Module:
    """One network of a diffusers folder."""
    model = MODELS[part](json.loads((root / part / "config.json").read_text()))
    model.load_state_dict({k: v.float() for k, v in load_file(root / part / WEIGHTS[part]).items()})
    return model.eval()


def save_model(root: Path, part: str, model: nn.Module) -> None:
    folder = root / part
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / WEIGHTS[part]
    partial = whole.with_suffix(".partial")  # so that nobody ever finds half a file
    save_file({k: v.cpu().contiguous() for k, v in model.state_dict().items()}, partial, {"format": "pt"})
    partial.replace(whole)
    (folder / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
