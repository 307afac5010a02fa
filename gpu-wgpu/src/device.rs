//! A device for those who have none.

use crate::error::Error;
use wgpu::{Adapter, Device, DeviceDescriptor, Instance, InstanceDescriptor, PowerPreference, Queue, RequestAdapterOptions};

/// Opens the fastest adapter with all the limits that it has. wgpu's own environment variables narrow the choice:
/// `WGPU_BACKEND=gl` for one.
///
/// # Errors
/// [`Error::NoDevice`] where there is no adapter, naming the graphics interfaces that this build looks for.
pub async fn open() -> Result<(Device, Queue), Error> {
    let interfaces = Instance::enabled_backend_features();
    if interfaces.is_empty() {
        let looked_for = "this build has no graphics interface: enable one of the features vulkan, metal, dx12, gles, webgpu";
        return Err(Error::NoDevice { looked_for: looked_for.to_string() });
    }
    let instance = Instance::new(InstanceDescriptor::new_without_display_handle_from_env());
    let options = RequestAdapterOptions { power_preference: PowerPreference::HighPerformance, ..Default::default() };
    let none = |e| Error::NoDevice { looked_for: format!("looked for an adapter by way of {interfaces:?}: {e}") };
    open_adapter(&instance.request_adapter(&options).await.map_err(none)?).await
}

/// Opens this adapter with all the limits that it has: the defaults are smaller than one embedding matrix.
///
/// # Errors
/// [`Error::NoDevice`] with the driver's reason.
pub async fn open_adapter(adapter: &Adapter) -> Result<(Device, Queue), Error> {
    let descriptor =
        DeviceDescriptor { label: Some("blockllm"), required_limits: adapter.limits(), ..DeviceDescriptor::default() };
    let none = |e| Error::NoDevice { looked_for: format!("adapter {:?}: {e}", adapter.get_info().name) };
    adapter.request_device(&descriptor).await.map_err(none)
}

/// [`open`], waiting for it. Not in a browser, which cannot block.
///
/// # Errors
/// As [`open`].
#[cfg(not(target_arch = "wasm32"))]
pub fn open_blocking() -> Result<(Device, Queue), Error> {
    use core::task::{Context, Poll, Waker};
    let mut opening = Box::pin(open());
    loop {
        if let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return opened;
        }
        std::thread::yield_now();
    }
}
