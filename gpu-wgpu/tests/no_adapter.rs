//! Where there is no adapter, the error says what was looked for. In a process of its own, which looks for none that exists.

use std::process::Command;

#[test]
fn no_adapter_is_an_error_that_says_what_was_looked_for() {
    let backend = "WGPU_BACKEND";
    if std::env::var(backend).is_ok_and(|b| b == "noop") {
        let error = blockllm_wgpu::open_blocking().expect_err("an interface that is not compiled in").to_string();
        assert!(error.contains("looked for an adapter by way of") && error.contains("VULKAN"), "{error}");
        return;
    }
    let program = std::env::current_exe().expect("this test's program");
    let child = Command::new(program).env(backend, "noop").output().expect("a child");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
}
