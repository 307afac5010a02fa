//! What fails says so, with a kind and the numbers, and reads as nothing else.

use blockllm::reference::HostBuffer;
use blockllm::{Backend, BackendError, BlockSpec, Config, DType, Error as EngineError, ErrorKind, Optimizer, Step, View};
use blockllm_wgpu::{Error, Tensor, Wgpu};
use wgpu::{Buffer, BufferDescriptor, BufferUsages, Device, Queue};

/// A device of the test's own, which it may break.
fn open(test: &str) -> Option<(Device, Queue)> {
    match blockllm_wgpu::open_blocking() {
        Ok(opened) => Some(opened),
        Err(why) => {
            assert!(!std::env::var("REQUIRE_BACKENDS").unwrap_or_default().contains("wgpu"), "{why}");
            println!("SKIP wgpu {test}: {why}");
            None
        }
    }
}

fn buffer(device: &Device, size: u64, usage: BufferUsages) -> Buffer {
    device.create_buffer(&BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

fn read(b: &mut Wgpu, from: &<Wgpu as Backend>::Buffer, len: usize) -> Result<HostBuffer, Error> {
    let mut out = HostBuffer::zeros(DType::F32, len);
    let mut ticket = b.read(from, 0, len)?;
    b.submit()?;
    while !b.poll(&mut ticket, out.view_mut(0, len))? {
        b.relax();
    }
    Ok(out)
}

#[test]
fn a_lost_device_is_an_error_and_never_zeros() {
    let Some((device, queue)) = open("a_lost_device_is_an_error_and_never_zeros") else { return };
    let mut b = Wgpu::new(&device, &queue).expect("a device");
    let mut x = b.alloc(DType::F32, 5).expect("memory");
    b.write(&mut x, 0, View::F32(&[7.0; 5])).expect("a write");
    assert_eq!(read(&mut b, &x, 5), Ok(HostBuffer::F32(vec![7.0; 5])));
    device.destroy();
    let lost = read(&mut b, &x, 5).expect_err("nothing can be read");
    assert_eq!(lost.kind(), ErrorKind::DeviceLost, "{lost}");
    // Asked for before, lost since.
    let Some((device, queue)) = open("a_lost_device_is_an_error_and_never_zeros") else { return };
    let mut b = Wgpu::new(&device, &queue).expect("a device");
    let x = b.alloc(DType::F32, 5).expect("memory");
    let mut ticket = b.read(&x, 0, 5).expect("a readback");
    device.destroy();
    let mut to = [3.0f32; 5];
    let failed = b.submit().and_then(|()| {
        loop {
            match b.poll(&mut ticket, blockllm::ViewMut::F32(&mut to)) {
                Ok(false) => b.relax(),
                other => break other,
            }
        }
    });
    assert_eq!(failed.map_err(|e| e.kind()), Err(ErrorKind::DeviceLost));
    assert_eq!(to, [3.0; 5]);
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let Some((device, queue)) = open("memory_that_is_not_there_is_an_error") else { return };
    let mut b = Wgpu::new(&device, &queue).expect("a device");
    let most = device.limits().max_buffer_size;
    let failed = b.alloc(DType::F64, (most / 8 + 1) as usize).expect_err("more than a buffer holds");
    assert_eq!(failed.kind(), ErrorKind::OutOfMemory);
    assert!(failed.to_string().contains(&most.to_string()), "{failed}");
}

#[test]
fn what_a_shader_cannot_compute_is_refused_by_name() {
    let Some((device, queue)) = open("what_a_shader_cannot_compute_is_refused_by_name") else { return };
    let b = Wgpu::new(&device, &queue).expect("a device");
    let blocks = [BlockSpec::new("head", [2, 2]).dtype(DType::F64)];
    let refused = Optimizer::new(b, &blocks, Config::adamw()).err().expect("f64");
    assert!(refused.to_string().contains("head") && refused.to_string().contains("f64"), "{refused}");
    let b = Wgpu::new(&device, &queue).expect("a device");
    let refused = Optimizer::new(b, &[BlockSpec::new("embedding", [1 << 16, 1 << 16])], Config::adamw()).err().expect("2^32");
    assert!(refused.to_string().contains("embedding") && refused.to_string().contains("4294967296"), "{refused}");
}

#[test]
fn a_tensor_must_lie_in_a_buffer_that_shaders_reach() {
    let Some((device, _)) = open("a_tensor_must_lie_in_a_buffer_that_shaders_reach") else { return };
    let b = buffer(&device, 16, BufferUsages::STORAGE);
    assert!(Tensor::new(&b, 1, 3, DType::F32).is_ok());
    assert!(Tensor::new(&b, 3, 5, DType::Bf16).is_ok());
    for (offset, len, dtype) in [(2, 3, DType::F32), (u64::MAX, 2, DType::F32), (0, usize::MAX, DType::F16), (0, 1, DType::F64)] {
        let refused = Tensor::new(&b, offset, len, dtype).expect_err("not inside");
        assert_eq!(refused.kind(), ErrorKind::Tensor, "{refused}");
    }
    // A 16-bit element whose word is not all there.
    assert!(Tensor::new(&buffer(&device, 14, BufferUsages::STORAGE), 6, 1, DType::F16).is_err());
    let refused = Tensor::new(&buffer(&device, 16, BufferUsages::COPY_DST), 0, 1, DType::F32).expect_err("no shader reaches it");
    assert!(refused.to_string().contains("STORAGE"), "{refused}");
}

/// The optimizer is poisoned, says where, and goes on from a record.
#[test]
fn work_that_the_device_refuses_poisons_until_a_record_is_restored() {
    let Some((device, queue)) = open("work_that_the_device_refuses_poisons_until_a_record_is_restored") else { return };
    let b = Wgpu::new(&device, &queue).expect("a device");
    let mut o = Optimizer::new(b, &[BlockSpec::new("w", [1, 8])], Config::adamw()).expect("an optimizer");
    let all = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let tensor = |size: u64| Tensor::new(&buffer(&device, size, all), 0, 8, DType::F32).expect("a tensor");
    let (p, g, gone) = (tensor(32), tensor(32), tensor(64));
    gone.buffer().destroy();
    let record = o.save().expect("a record");
    let failed = o.step(Step::new(0.1), |_| Some(&gone), &mut [(0, &p)]).expect_err("a destroyed buffer");
    let EngineError::Backend { error, .. } = &failed else { panic!("{failed}") };
    assert_eq!(error.kind(), ErrorKind::Launch, "{failed}");
    assert!(matches!(o.step(Step::new(0.1), |_| Some(&g), &mut [(0, &p)]), Err(EngineError::Poisoned)));
    o.restore(&record).expect("the device is well");
    let _ = o.step(Step::new(0.1), |_| Some(&g), &mut [(0, &p)]).expect("a step");
    o.wait().expect("the switch");
    assert_eq!(o.report().expect("a report").applied, 1);
}

#[test]
fn the_callers_handler_sees_none_of_it() {
    let Some((device, queue)) = open("the_callers_handler_sees_none_of_it") else { return };
    device.on_uncaptured_error(std::sync::Arc::new(|e: wgpu::Error| panic!("not caught: {e}")));
    let mut b = Wgpu::new(&device, &queue).expect("a device");
    let x = b.alloc(DType::F32, 4).expect("memory");
    // Beyond the end.
    assert_eq!(read(&mut b, &x, 5).map_err(|e| e.kind()), Err(ErrorKind::Launch));
    assert_eq!(read(&mut b, &x, 4), Ok(HostBuffer::F32(vec![0.0; 4])));
}
