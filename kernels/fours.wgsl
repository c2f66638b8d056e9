// For kernels that work by elements: four at a time, which adapters that are processors read as fast as one.
alias Numbers = vec4f;
const EACH = 4u;
