//! Calls of the driver that load and launch kernels.
//!
//! Unsafe code is allowed here, since a launch is a name, a grid and untyped arguments to Rust. Each kernel takes one
//! structure, which [`arguments`](crate::arguments) mirrors and a test compares with the PTX; the addresses in it are those of
//! buffers, which are freed in stream order, and of tensors, for which their maker has given his word.
#![allow(unsafe_code)]

use crate::arguments::Arguments;
use crate::error::{During, Error};
use core::ffi::c_void;
use cudarc::driver::sys::{self, CUfunction, CUmodule};
use cudarc::driver::{CudaContext, CudaStream, result};
use std::ffi::CString;
use std::sync::Arc;

/// Threads of a thread block, as `kernels/launch.cuh` has it.
pub(crate) const THREADS: u64 = 256;

/// The primary context of a device. Asks for the driver's library first: cudarc panics where there is none.
///
/// # Errors
/// No driver, no such device.
pub fn open(ordinal: usize) -> Result<Arc<CudaContext>, Error> {
    // SAFETY: it loads and drops the library; the driver's has no initialisers that anything here depends on.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver);
    }
    CudaContext::new(ordinal).during("open a device")
}

/// The newest CUDA that the driver knows, as it numbers them; 0 where it does not say.
fn driver_version() -> i32 {
    let mut version = 0;
    // SAFETY: the address is of an integer that lives through the call.
    let _ = unsafe { sys::cuDriverGetVersion(&mut version) };
    version
}

/// A loaded PTX file.
#[derive(Debug)]
struct Module {
    handle: CUmodule,
    context: Arc<CudaContext>,
}

impl Drop for Module {
    fn drop(&mut self) {
        self.context.record_err(self.context.bind_to_thread());
        // SAFETY: it was loaded, and is unloaded once, after the last of its functions is gone.
        self.context.record_err(unsafe { result::module::unload(self.handle) });
    }
}

/// A kernel.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    handle: CUfunction,
    _module: Arc<Module>,
}

// SAFETY: the driver takes handles of modules from any thread to which the context is bound.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}
// SAFETY: as above, of functions.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// The functions of these names, from one PTX file.
pub(crate) fn load<'n>(
    context: &Arc<CudaContext>, kernel: &'static str, ptx: &str, names: impl Iterator<Item = String> + 'n,
) -> Result<Vec<Function>, Error> {
    context.bind_to_thread().during("load kernels")?;
    let failed = |error| Error::Kernel { kernel, driver: driver_version(), error };
    let text = CString::new(ptx).expect("PTX has no zeros");
    // SAFETY: the image is PTX, ends with a zero, and lives through the call.
    let handle = unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(failed)?;
    let module = Arc::new(Module { handle, context: context.clone() });
    let function = |name: String| {
        let name = CString::new(name).expect("a kernel's name");
        // SAFETY: the module is loaded, and lives as long as the function.
        let handle = unsafe { result::module::get_function(module.handle, name) }.map_err(failed)?;
        Ok(Function { handle, _module: module.clone() })
    };
    names.map(function).collect()
}

/// Queues a kernel.
pub(crate) fn launch<A: Arguments>(
    stream: &CudaStream, function: &Function, thread_blocks: u32, arguments: &A, operation: &'static str,
) -> Result<(), Error> {
    stream.context().bind_to_thread().during(operation)?;
    let (grid, threads) = ((thread_blocks, 1, 1), (THREADS as u32, 1, 1));
    let mut parameters = [core::ptr::from_ref(arguments).cast_mut().cast::<c_void>()];
    // SAFETY: the function is loaded and takes one structure of this layout, which the driver copies before it returns. Its
    // addresses are good until the kernel has run: see the module.
    unsafe { result::launch_kernel(function.handle, grid, threads, 0, stream.cu_stream(), &mut parameters) }.during(operation)
}
