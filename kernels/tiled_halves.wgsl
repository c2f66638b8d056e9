// What tiled.wgsl reads of A where it is f16, and so are tiles: half the bytes, the same numbers.
alias Words = vec4<f16>;
alias NumberOfA = f16;
alias QuadOfA = vec4<f16>;

fn numberOfA(at: u32) -> NumberOfA { return a[at / 4u][at % 4u]; }

// Four numbers that lie side by side from a multiple of 4 on.
fn fourOfA(at: u32) -> QuadOfA { return a[at / 4u]; }
