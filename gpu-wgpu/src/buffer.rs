//! Buffers of the arena, and their readbacks.

use crate::error::Error;
use crate::recorder::Recorder;
use crate::window::Run;
use blockllm::{DType, View, ViewMut};
use std::sync::{Arc, OnceLock};
use wgpu::{BufferUsages, MapMode};

/// A typed run of device memory. An f64 is two words, the low one first.
#[derive(Debug)]
pub struct Buffer {
    /// Nothing for a placeholder of no elements.
    raw: Option<wgpu::Buffer>,
    dtype: DType,
}

/// A readback on its way.
#[derive(Debug)]
pub struct Ticket {
    staging: Option<wgpu::Buffer>,
    mapped: Arc<OnceLock<bool>>,
}

impl Buffer {
    /// Zeros.
    pub(crate) fn new(recorder: &mut Recorder, dtype: DType, len: usize) -> Result<Self, Error> {
        let bytes = (len * dtype.size()) as u64;
        let raw = if len == 0 { None } else { Some(recorder.storage("allocate", bytes)?) };
        Ok(Self { raw, dtype })
    }

    /// Its elements, in words.
    pub(crate) fn words(&self) -> Option<Run<'_>> {
        self.raw.as_ref().map(|buffer| Run { buffer, at: 0, size: 4 })
    }

    fn bytes(&self, elements: usize) -> u64 {
        (elements * self.dtype.size()) as u64
    }

    pub(crate) fn zero(&mut self, recorder: &mut Recorder, at: usize, len: usize) {
        let (at, bytes) = (self.bytes(at), self.bytes(len));
        if let Some(raw) = self.raw.as_ref().filter(|_| len > 0) {
            recorder.commands().clear_buffer(raw, at, Some(bytes));
        }
    }

    pub(crate) fn copy(&self, recorder: &mut Recorder, to: &Self, len: usize) {
        if let (Some(from), Some(to)) = (&self.raw, &to.raw)
            && len > 0
        {
            recorder.commands().copy_buffer_to_buffer(from, 0, to, 0, self.bytes(len));
        }
    }

    pub(crate) fn write(&mut self, recorder: &mut Recorder, at: usize, from: View<'_>) -> Result<(), Error> {
        let bytes: &[u8] = match from {
            View::F32(x) => bytemuck::cast_slice(x),
            View::F64(x) => bytemuck::cast_slice(x),
            View::U32(x) => bytemuck::cast_slice(x),
            other => unreachable!("an arena holds no {}", other.dtype()),
        };
        assert_eq!(from.dtype(), self.dtype, "written to a buffer of another type");
        match &self.raw {
            Some(raw) if !bytes.is_empty() => recorder.write(raw, self.bytes(at), bytes),
            _ => Ok(()),
        }
    }

    pub(crate) fn read(&self, recorder: &mut Recorder, at: usize, len: usize) -> Result<Ticket, Error> {
        let mapped = Arc::new(OnceLock::new());
        let Some(raw) = self.raw.as_ref().filter(|_| len > 0) else { return Ok(Ticket { staging: None, mapped }) };
        let bytes = self.bytes(len);
        let staging = recorder.buffer("read", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let commands = recorder.commands();
        commands.copy_buffer_to_buffer(raw, self.bytes(at), &staging, 0, bytes);
        let told = mapped.clone();
        commands.map_buffer_on_submit(&staging, MapMode::Read, .., move |result| {
            let _ = told.set(result.is_ok());
        });
        recorder.counts.readbacks += 1;
        Ok(Ticket { staging: Some(staging), mapped })
    }
}

impl Ticket {
    /// Whether the elements have come; they are then in `to`.
    pub(crate) fn poll(&mut self, recorder: &mut Recorder, to: ViewMut<'_>) -> Result<bool, Error> {
        let lost = Error::DeviceLost { operation: "read" };
        let settled = recorder.check()?;
        let Some(staging) = &self.staging else { return Ok(true) };
        recorder.device.poll(wgpu::PollType::Poll).map_err(|_| lost.clone())?;
        // The callback holds the other reference; it was dropped uncalled where this one is alone and nothing was told.
        let is_alone = Arc::strong_count(&self.mapped) == 1;
        match self.mapped.get() {
            None if is_alone => {
                let message = String::from("the work that it waits for failed and was dropped");
                return Err(Error::Launch { operation: "read", message });
            }
            None => return Ok(false),
            Some(false) => return Err(lost),
            // A browser maps zeros where a submission failed, and says so elsewhere.
            Some(true) if !settled => return Ok(false),
            Some(true) => {}
        }
        let bytes = staging.slice(..).get_mapped_range().map_err(|_| lost)?;
        let to: &mut [u8] = match to {
            ViewMut::F32(x) => bytemuck::cast_slice_mut(x),
            ViewMut::F64(x) => bytemuck::cast_slice_mut(x),
            ViewMut::U32(x) => bytemuck::cast_slice_mut(x),
            other => unreachable!("an arena holds no {}", other.as_view().dtype()),
        };
        to.copy_from_slice(&bytes);
        drop(bytes);
        staging.unmap();
        Ok(true)
    }
}
