// Words of one block's coefficients, which coefficients.wgsl makes of its powers.

const COEFFICIENTS: u32 = 8u;
const C1: u32 = 0u;              // f(1 - beta1^t)
const C2: u32 = 1u;              // f(sqrt(1 - beta2^t))
const ENTERING_M: u32 = 2u;      // f(1 - beta1^(t-1))
const ENTERING_V: u32 = 3u;      // f(1 - beta2^(t-1))
const CLIP: u32 = 4u;            // f(clip)
const SKIPPED_STEP: u32 = 5u;    // 1.0 where the step is skipped, else 0.0
