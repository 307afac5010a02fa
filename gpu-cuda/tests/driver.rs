//! What is asked of the driver, and what becomes of its errors. Mostly on the stand-in alone, which counts calls and can make
//! one fail: a check then runs itself again in a process of its own, since both are set from the environment.

mod common;

use blockllm::{
    Backend, BackendError, BlockSpec, Config, DType, Error, Optimizer, Policy, Progress, Step, Trigger, View, ViewMut,
};
use blockllm_conformance::harness::Harness;
use blockllm_cuda::cudarc::driver::CudaSlice;
use blockllm_cuda::{Cuda, Tensor, TensorMut};
use std::io::Write;
use std::process::Command;

const CHILD: &str = "BLOCKLLM_CUDA_STEPS";
const LENGTHS: [usize; 4] = [3000, 700, 20_000, 41];

/// Runs some steps on the device. What went wrong.
fn run(steps: u32) -> Result<(), (String, blockllm::ErrorKind)> {
    let own = |e: blockllm_cuda::Error| (e.to_string(), e.kind());
    let of_backend = |e: Error<blockllm_cuda::Error>| match e {
        Error::Backend { ref error, .. } => (e.to_string(), error.kind()),
        other => panic!("{other}"),
    };
    let context = blockllm_cuda::open(0).map_err(own)?;
    let stream = context.new_stream().expect("a stream");
    let backend = Cuda::new(stream.clone()).map_err(own)?;
    let specs: Vec<_> = LENGTHS.iter().enumerate().map(|(i, n)| BlockSpec::new(format!("block {i}"), [1, *n])).collect();
    let config = Config { policy: Policy::BlockLlm(Trigger::Period(1000)), ..Config::default() };
    let mut optimizer = Optimizer::new(backend, &specs, config).map_err(of_backend)?;
    let numbers = |n: &usize| stream.clone_htod(&vec![0.5f32; *n]).expect("device memory");
    let mut p: Vec<CudaSlice<f32>> = LENGTHS.iter().map(numbers).collect();
    let g: Vec<CudaSlice<f32>> = LENGTHS.iter().map(numbers).collect();
    for _ in 0..steps {
        let tensor = |p| TensorMut::new(CudaSlice::as_view_mut(p), &stream).expect("one context");
        let mut moved: Vec<_> = (0..).zip(p.iter_mut().map(tensor)).collect();
        let gradient = |block: u32| Tensor::new(g[block as usize].as_view(), &stream).ok();
        let step = Step { loss: Some(1.0), ..Step::new(1e-3) };
        if optimizer.step(step, gradient, &mut moved).map_err(of_backend)? == Progress::Pending {
            optimizer.wait().map_err(of_backend)?;
        }
    }
    Ok(())
}

/// In the child: runs the steps and says what came of them. Whether this is the child.
fn is_child() -> bool {
    let Ok(steps) = std::env::var(CHILD) else { return false };
    match run(steps.parse().expect("a number")) {
        Ok(()) => println!("\nran"),
        Err((message, kind)) => println!("\nfailed {kind:?}: {message}"),
    }
    true
}

/// Runs `test` again in a child. The line that it printed.
fn child(test: &str, steps: u32, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--nocapture"]).env(CHILD, steps.to_string()).envs(variables.iter().copied());
    let out = command.output().expect("a process");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find(|l| *l == "ran" || l.starts_with("failed "));
    line.unwrap_or_else(|| panic!("{test} {variables:?}: {text}{}", String::from_utf8_lossy(&out.stderr))).to_string()
}

/// Runs a check where the stand-in is the device.
fn on_the_stand_in(test: &str, check: impl Fn()) {
    blockllm_conformance::harness::with::<common::Device>(test, |device| match device.name().contains("emulated") {
        true => check(),
        // Past the test runner's capture, as the suite does it.
        false => writeln!(std::io::stdout(), "SKIP {test}: the device is no stand-in, which counts and fails as it is told")
            .expect("standard output"),
    });
}

/// How often each function was called in so many steps.
fn calls(test: &str, steps: u32) -> Vec<(String, u64)> {
    let path = std::env::temp_dir().join(format!("blockllm-cuda-calls-{}-{steps}", std::process::id()));
    let name = path.to_string_lossy().into_owned();
    assert_eq!(child(test, steps, &[("CUDA_EMULATION_COUNTS", &name)]), "ran");
    let text = std::fs::read_to_string(&path).expect("the counts");
    std::fs::remove_file(&path).expect("a file that can be removed");
    let count = |line: &str| line.split_once(' ').map(|(name, n)| (name.to_string(), n.parse().expect("a number")));
    text.lines().filter_map(count).collect()
}

#[test]
fn a_plain_step_neither_allocates_nor_copies_nor_waits() {
    const TEST: &str = "a_plain_step_neither_allocates_nor_copies_nor_waits";
    if is_child() {
        return;
    }
    on_the_stand_in(TEST, || {
        let (few, many) = (calls(TEST, 3), calls(TEST, 8));
        let before = |name: &str| few.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count);
        let more = |name: &str| many.iter().find(|(n, _)| n == name).map_or(0, |(_, count)| *count) - before(name);
        assert!(more("cuLaunchKernel") >= 5 * 10, "{many:?}");
        // What the caller's tensors, which are cudarc's, ask for is not the backend's.
        let of_tensors = ["cuStreamWaitEvent", "cuEventRecord"];
        let usual = ["cuLaunchKernel", "cuMemsetD8Async", "cuCtxGetCurrent", "launches", "thread_blocks", "barriers"];
        for (name, _) in &many {
            let is_allowed = of_tensors.contains(&name.as_str()) || usual.contains(&name.as_str());
            assert!(is_allowed || more(name) == 0, "{name}: {} more in five plain steps", more(name));
        }
    });
}

#[test]
fn errors_say_what_and_where() {
    const TEST: &str = "errors_say_what_and_where";
    if is_child() {
        return;
    }
    on_the_stand_in(TEST, || {
        for (fault, want) in [
            ("cuInit:1:100", "failed DeviceLost: open a device: CUDA_ERROR_NO_DEVICE"),
            ("cuModuleLoadData:3:222", "failed Launch: kernel digit cannot be loaded: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
            ("cuModuleGetFunction:1:500", "failed Launch: kernel carry cannot be loaded: CUDA_ERROR_NOT_FOUND"),
            ("cuMemAllocAsync:1:2", "failed OutOfMemory: prepare the device: alloc: CUDA_ERROR_OUT_OF_MEMORY"),
            ("cuMemAllocAsync:7:2", "failed OutOfMemory: allocate the arena: alloc: CUDA_ERROR_OUT_OF_MEMORY"),
            ("cuLaunchKernel:9:701", "failed Launch: step: digit: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
            ("cuLaunchKernel:40:700", "failed DeviceLost: step: state_free: CUDA_ERROR_ILLEGAL_ADDRESS"),
            ("cuMemcpyDtoHAsync_v2:1:719", "failed DeviceLost: end a step: read: CUDA_ERROR_LAUNCH_FAILED"),
            ("cuEventQuery:1:719", "failed DeviceLost: read a decision: poll: CUDA_ERROR_LAUNCH_FAILED"),
        ] {
            let line = child(TEST, 12, &[("CUDA_EMULATION_FAULT", fault)]);
            assert!(line.starts_with(want), "{fault}: {line}");
        }
        let old = [("CUDA_EMULATION_FAULT", "cuModuleLoadData:1:222"), ("CUDA_EMULATION_VERSION", "11080")];
        let line = child(TEST, 1, &old);
        assert!(line.ends_with("; the driver is for CUDA 11.8, CUDA 12.0 is needed"), "{line}");
    });
}

#[test]
fn without_page_locked_memory_readbacks_still_come() {
    const TEST: &str = "without_page_locked_memory_readbacks_still_come";
    if is_child() {
        return;
    }
    on_the_stand_in(TEST, || assert_eq!(child(TEST, 3, &[("CUDA_EMULATION_FAULT", "cuMemHostAlloc:1:2")]), "ran"));
}

#[test]
fn a_device_without_pools_works() {
    const TEST: &str = "a_device_without_pools_works";
    if is_child() {
        return;
    }
    on_the_stand_in(TEST, || assert_eq!(child(TEST, 3, &[("CUDA_EMULATION_NO_POOLS", "1")]), "ran"));
}

#[test]
fn no_driver_is_an_error() {
    const TEST: &str = "no_driver_is_an_error";
    if is_child() {
        return;
    }
    on_the_stand_in(TEST, || {
        let line = child(TEST, 1, &[("LD_LIBRARY_PATH", "")]);
        assert_eq!(line, "failed Other: no CUDA driver: its library (libcuda.so.1, nvcuda.dll) is not found");
    });
}

/// Its memory may be written to after it was given up, by the copy that was under way.
#[test]
fn a_readback_that_is_abandoned_disturbs_no_other() {
    blockllm_conformance::harness::with::<common::Device>("a_readback_that_is_abandoned_disturbs_no_other", |device| {
        let mut b = device.backend();
        let mut buffer = b.alloc(DType::U32, 1000).expect("device memory");
        for round in 1..=5u32 {
            b.write(&mut buffer, 0, View::U32(&[round; 1000])).expect("elements that can be written");
            drop(b.read(&buffer, 0, 1000).expect("a readback"));
            b.zero(&mut buffer, 0, 500).expect("zeros");
            let mut ticket = b.read(&buffer, 400, 200).expect("a readback");
            b.submit().expect("work that can be queued");
            let mut got = [7; 200];
            while !b.poll(&mut ticket, ViewMut::U32(&mut got)).expect("elements") {
                b.relax();
            }
            assert!(got[..100].iter().all(|x| *x == 0) && got[100..].iter().all(|x| *x == round), "round {round}: {got:?}");
        }
        assert_eq!(b.counts().readbacks, 10);
        assert!(b.counts().allocations <= 3, "host memory is not used again: {:?}", b.counts());
    });
}
