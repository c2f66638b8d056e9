// What kernels that read stages have in common: their source follows.
const THREADS = 8u; // of a workgroup: what software adapters do at once
const ROW_BITS = 8u; // a texture row holds 256 texels

// Where texel i of a stage is.
fn place(i: u32) -> vec2u { return vec2u(i & ((1u << ROW_BITS) - 1u), i >> ROW_BITS); }
