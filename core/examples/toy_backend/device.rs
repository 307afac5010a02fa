//! The device, as a driver's API would give it: memory behind addresses, a queue of operations that run at submission,
//! memory freed in queue order. It knows nothing of optimizers.

use blockllm::reference::HostBuffer;
use blockllm::{DType, View};
use std::cell::{RefCell, RefMut};
use std::rc::Rc;

/// Where a buffer lies in device memory. Copy: it outlives the call that it was handed to.
pub type Address = usize;

/// Device memory, by address; `None` where it was freed. A kernel borrows the buffers that it touches.
#[derive(Default)]
pub struct Memory(Vec<Option<RefCell<HostBuffer>>>);

impl Memory {
    /// A buffer of any type.
    pub fn at(&self, address: Address) -> RefMut<'_, HostBuffer> {
        self.0[address].as_ref().expect("memory that was not freed").borrow_mut()
    }

    /// A buffer of f32, as a kernel sees it.
    pub fn f32s(&self, address: Address) -> RefMut<'_, [f32]> {
        RefMut::map(self.at(address), |x| if let HostBuffer::F32(x) = x { &mut x[..] } else { panic!("a buffer of f32") })
    }

    /// A buffer of f64.
    pub fn f64s(&self, address: Address) -> RefMut<'_, [f64]> {
        RefMut::map(self.at(address), |x| if let HostBuffer::F64(x) = x { &mut x[..] } else { panic!("a buffer of f64") })
    }

    /// A buffer of words.
    pub fn u32s(&self, address: Address) -> RefMut<'_, [u32]> {
        RefMut::map(self.at(address), |x| if let HostBuffer::U32(x) = x { &mut x[..] } else { panic!("a buffer of words") })
    }

    fn bytes(&self) -> usize {
        self.0.iter().flatten().map(|x| x.borrow().len() * x.borrow().dtype().size()).sum()
    }
}

/// Boxed without a lifetime: the compiler refuses an operation that keeps a borrow of the call it is recorded in.
type Operation = Box<dyn FnOnce(&mut Memory)>;

#[derive(Default)]
struct Device {
    memory: Memory,
    /// Bytes that it has.
    capacity: usize,
    recorded: Vec<Operation>,
    submissions: usize,
    allocations: usize,
}

/// A handle of the device. Whoever has device memory shares it: an optimizer drops its backend before its buffers.
#[derive(Clone, Default)]
pub struct Queue(Rc<RefCell<Device>>);

/// More memory was asked for than is free.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OutOfMemory {
    pub asked: usize,
    pub free: usize,
}

impl Queue {
    /// Of a device with so much memory, in bytes; may be called again, as if another process took memory or gave it back.
    pub fn set_capacity(&self, bytes: usize) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// Bytes in use, buffers that wait to be freed included.
    pub fn bytes(&self) -> usize {
        self.0.borrow().memory.bytes()
    }

    /// Submissions so far.
    pub fn submissions(&self) -> usize {
        self.0.borrow().submissions
    }

    /// Buffers made so far.
    pub fn allocations(&self) -> usize {
        self.0.borrow().allocations
    }

    /// At once and zeroed at once: nothing that is recorded knows of a buffer that is only now made.
    pub fn alloc(&self, dtype: DType, len: usize) -> Result<Buffer, OutOfMemory> {
        let device = &mut *self.0.borrow_mut();
        let (asked, free) = (dtype.size() * len, device.capacity.saturating_sub(device.memory.bytes()));
        if asked > free {
            return Err(OutOfMemory { asked, free });
        }
        device.allocations += usize::from(len > 0);
        device.memory.0.push(Some(RefCell::new(HostBuffer::zeros(dtype, len))));
        Ok(Buffer { address: device.memory.0.len() - 1, dtype, len, queue: self.clone() })
    }

    /// To run at the next submission, after all that was recorded before.
    pub fn record(&self, operation: impl FnOnce(&mut Memory) + 'static) {
        self.0.borrow_mut().recorded.push(Box::new(operation));
    }

    /// Runs what was recorded. A GPU would only begin to.
    pub fn submit(&self) {
        let device = &mut *self.0.borrow_mut();
        device.submissions += 1;
        device.recorded.drain(..).for_each(|operation| operation(&mut device.memory));
    }

    /// The elements at once, ahead of what is recorded: many queues' uploads overtake the commands still being recorded.
    pub fn reach<R>(&self, buffer: &Buffer, f: impl FnOnce(&mut HostBuffer) -> R) -> R {
        f(&mut self.0.borrow().memory.at(buffer.address))
    }

    /// A tensor of the caller's: it lies on the device as the engine's buffers do.
    pub fn upload(&self, x: &[f32]) -> Result<Buffer, OutOfMemory> {
        let buffer = self.alloc(DType::F32, x.len())?;
        self.reach(&buffer, |elements| elements.view_mut(0, x.len()).copy_from(View::F32(x)));
        Ok(buffer)
    }

    /// A tensor's elements when all that was recorded has run.
    pub fn download(&self, buffer: &Buffer) -> Vec<f32> {
        self.submit();
        self.0.borrow().memory.f32s(buffer.address).to_vec()
    }
}

/// Device memory, owned.
pub struct Buffer {
    pub address: Address,
    pub dtype: DType,
    pub len: usize,
    queue: Queue,
}

impl Drop for Buffer {
    /// In queue order: what was recorded before may still use it.
    fn drop(&mut self) {
        let address = self.address;
        self.queue.record(move |memory| memory.0[address] = None);
    }
}
