//! The device that tests run on, and tensors there.

use blockllm::{Backend, DType, View};
use blockllm_conformance::harness::{Agreement, Counts, Harness};
use blockllm_conformance::host::Host;
use blockllm_cuda::cudarc::driver::{CudaSlice, CudaStream};
use blockllm_cuda::{Cuda, Kernels, Tensor, TensorMut};
use half::{bf16, f16};
use std::sync::{Arc, Mutex, PoisonError};

/// A device, and a stream of its own.
pub struct Device {
    kernels: Arc<Kernels>,
    stream: Arc<CudaStream>,
}

/// Loaded once: thousands of backends are made.
static KERNELS: Mutex<Option<Arc<Kernels>>> = Mutex::new(None);

impl Device {
    /// The device's name.
    #[allow(dead_code)] // not every test asks
    pub fn name(&self) -> String {
        self.stream.context().name().expect("a device has a name")
    }
}

/// The first device's kernels.
fn kernels() -> Result<Arc<Kernels>, String> {
    let mut loaded = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernels) = &*loaded {
        return Ok(kernels.clone());
    }
    let context = blockllm_cuda::open(0).map_err(|e| e.to_string())?;
    // That of the stand-in says what it is: its results are never taken for a GPU's.
    println!("device: {}", context.name().map_err(|e| e.to_string())?);
    let kernels = Kernels::load(&context).map_err(|e| e.to_string())?;
    Ok(loaded.insert(kernels).clone())
}

macro_rules! placed {
    ($($variant:ident: $t:ty, $sentinel:expr;)*) => {
        /// Elements in a slice, from the second on; one more lies behind them.
        enum Placed {
            $($variant(CudaSlice<$t>),)*
        }

        impl Placed {
            fn new(stream: &Arc<CudaStream>, x: View<'_>) -> Self {
                match x {
                    $(View::$variant(x) => {
                        let all: Vec<$t> = [$sentinel].iter().chain(x).chain(&[$sentinel]).copied().collect();
                        Self::$variant(stream.clone_htod(&all).expect("device memory"))
                    })*
                    other => panic!("a tensor of {}", other.dtype()),
                }
            }

            fn get(&self, stream: &Arc<CudaStream>) -> Host {
                match self {
                    $(Self::$variant(slice) => {
                        let all = stream.clone_dtoh(slice).expect("elements that can be read");
                        let [before, inside @ .., after] = &all[..] else { panic!("elements around the tensor") };
                        assert!([before, after].iter().all(|e| e.to_bits() == $sentinel.to_bits()), "a write beside a tensor");
                        Host::from_view(View::$variant(inside))
                    })*
                }
            }

            fn tensor<'a>(&'a self, stream: &'a CudaStream) -> Tensor<'a> {
                match self {
                    $(Self::$variant(slice) => Tensor::new(slice.slice(1..slice.len() - 1), stream),)*
                }
                .expect("one context")
            }

            fn tensor_mut<'a>(&'a mut self, stream: &'a CudaStream) -> TensorMut<'a> {
                match self {
                    $(Self::$variant(slice) => {
                        let end = slice.len() - 1;
                        TensorMut::new(slice.slice_mut(1..end), stream)
                    })*
                }
                .expect("one context")
            }
        }
    };
}

placed! {
    F16: f16, f16::from_bits(0x7bcd);
    Bf16: bf16, bf16::from_bits(0x7bcd);
    F32: f32, f32::from_bits(0x7bcd_1234);
    F64: f64, f64::from_bits(0x7bcd_1234_5678_9abc);
}

/// A tensor at an odd offset of a slice.
pub struct Remote {
    slice: Placed,
    stream: Arc<CudaStream>,
}

impl Harness for Device {
    const NAME: &'static str = "cuda-emulated";
    const AGREEMENT: Agreement = Agreement::Bits;
    type Backend = Cuda;
    type Tensor = Remote;

    fn open() -> Result<Self, String> {
        let kernels = kernels()?;
        let stream = kernels.context().new_stream().map_err(|e| e.to_string())?;
        Ok(Self { kernels, stream })
    }

    fn backend(&mut self) -> Cuda {
        Cuda::with_kernels(self.kernels.clone(), self.stream.clone()).expect("kernels of this context")
    }

    fn supports(dtype: DType) -> bool {
        dtype.compute().is_some()
    }

    fn upload(&mut self, x: View<'_>) -> Remote {
        Remote { slice: Placed::new(&self.stream, x), stream: self.stream.clone() }
    }

    fn download(&mut self, backend: &mut Cuda, t: &Remote) -> Host {
        backend.submit().expect("work that can be queued");
        t.slice.get(&t.stream)
    }

    fn param(t: &mut Remote) -> TensorMut<'_> {
        t.slice.tensor_mut(&t.stream)
    }

    fn grad(t: &Remote) -> Tensor<'_> {
        t.slice.tensor(&t.stream)
    }

    fn counts(backend: &Cuda) -> Counts {
        let counts = backend.counts();
        Counts { allocations: counts.allocations, submissions: counts.submissions, readbacks: counts.readbacks }
    }
}
