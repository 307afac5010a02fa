//! The suite on the toy backend that the chapter `write_a_backend` goes through.

#[path = "../../core/examples/toy_backend/backend.rs"]
mod backend;
#[allow(dead_code)] // the example itself uses the rest
#[path = "../../core/examples/toy_backend/device.rs"]
mod device;
#[path = "../../core/examples/toy_backend/error.rs"]
mod error;
#[path = "../../core/examples/toy_backend/seal.rs"]
mod seal;

use backend::{Tensor, Toy};
use blockllm::{DType, View};
use blockllm_conformance::harness::{Agreement, Counts, Harness};
use blockllm_conformance::host::Host;
use device::{Buffer, Queue};

struct ToyHarness(Queue);

impl Harness for ToyHarness {
    const NAME: &'static str = "toy";
    const AGREEMENT: Agreement = Agreement::Bits;
    type Backend = Toy;
    type Tensor = Buffer;

    fn open() -> Result<Self, String> {
        let queue = Queue::default();
        queue.set_capacity(1 << 30);
        Ok(Self(queue))
    }

    fn backend(&mut self) -> Toy {
        Toy::new(&self.0)
    }

    fn supports(dtype: DType) -> bool {
        dtype == DType::F32
    }

    fn upload(&mut self, x: View<'_>) -> Buffer {
        let View::F32(x) = x else { panic!("a tensor of {}", x.dtype()) };
        self.0.upload(x).expect("device memory")
    }

    fn download(&mut self, _: &mut Toy, t: &Buffer) -> Host {
        Host::F32(self.0.download(t))
    }

    fn param(t: &mut Buffer) -> Tensor {
        Self::grad(t)
    }

    fn grad(t: &Buffer) -> Tensor {
        Tensor { address: t.address, len: t.len }
    }

    fn counts(toy: &Toy) -> Counts {
        // Uploads of the caller's are not the backend's: a test has as many in a step as gradients.
        Counts { allocations: 0, submissions: toy.queue.submissions(), readbacks: toy.readbacks }
    }
}

blockllm_conformance::agreement!(ToyHarness);
