// For kernels that work by elements: one at a time, where lines do not come in fours.
alias Numbers = f32;
const EACH = 1u;
