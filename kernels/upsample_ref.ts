/** Float64 definition of nearest upsampling and its vjp. */
import type { Params } from "./backend.ts";

/** Bindings x, out; with GRAD x is the gradient on the output. */
export function upsampleRef(
  [x, out]: readonly Float64Array[],
  p: Params,
  { GRAD = 0 }: Params,
): void {
  const { planes = 0, height = 1, width = 1, outHeight = 1, outWidth = 1 } = p;
  if (GRAD) out!.fill(0, 0, planes * height * width);
  for (let plane = 0; plane < planes; plane++) {
    for (let oy = 0; oy < outHeight; oy++) {
      for (let ox = 0; ox < outWidth; ox++) {
        const small =
          (plane * height + Math.floor(oy * height / outHeight)) * width +
          Math.floor(ox * width / outWidth);
        const large = (plane * outHeight + oy) * outWidth + ox;
        if (GRAD) out![small] = out![small]! + x![large]!;
        else out![large] = x![small]!;
      }
    }
  }
}
