/** Golden cases of kind `text`: the CLIP text encoder. */
import type { Tensor } from "../../kernels/backend.ts";
import { linear } from "../../kernels/linear.ts";
import { encodeText, loadTextEncoder } from "../../pipeline/text_encoder.ts";
import type { GoldenCase } from "./case.ts";

/** Runs a case of kind `text`. */
export async function runText(c: GoldenCase): Promise<void> {
  const encoder = c.own(
    await loadTextEncoder(c.backend, await c.weights()),
  );
  const [batch = 1, length = 1] = c.shape("input.ids");
  const flat = await c.ints("input.ids");
  const ids = Array.from(
    { length: batch },
    (_, b) => flat.slice(b * length, (b + 1) * length),
  );
  const hidden: Tensor[] = [];
  const last = c.own(
    encodeText(encoder, ids, (_, x) => hidden.push(c.own(x.retain()))),
  );
  hidden.forEach((x, i) => {
    const name = `hidden_states.${i}`;
    if (c.has(`expected.${name}`)) c.expectSwapped(name, x);
  });
  c.expectSwapped("last_hidden_state", last);
  if (c.has("expected.penultimate")) {
    c.expectSwapped("penultimate", hidden.at(-2)!);
  }
  if (!c.has("expected.pooled") && !c.has("expected.text_embeds")) return;

  // The end of text is the largest id, for configs with eos_token_id 2 as all published ones have.
  const eos = c.entry.config?.eos_token_id;
  const ends = ids.map((list) =>
    eos === 2 ? list.indexOf(Math.max(...list)) : list.indexOf(Number(eos))
  );
  const channels = encoder.config.channels;
  const pool = (values: ArrayLike<number>): Float64Array<ArrayBuffer> =>
    Float64Array.from(
      { length: batch * channels },
      (_, i) => values[i * length + ends[Math.floor(i / channels)]!]!,
    );
  if (c.has("expected.pooled")) c.expect("pooled", last, pool);
  if (c.has("expected.text_embeds") && encoder.projection) {
    const [values] = await c.backend.read([last]);
    const pooled = c.own(
      c.backend.upload(pool(values!), [batch, channels, 1]),
    );
    c.expect("text_embeds", c.own(linear(pooled, encoder.projection)));
  }
}
