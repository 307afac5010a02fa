//! What is promised of the PTX that ships, read from it. No GPU is needed.

use super::FILES;
use crate::arguments::SIZES;

/// Instructions of a file: mnemonics, without predicates, labels, directives and comments.
fn instructions(ptx: &str) -> impl Iterator<Item = &str> {
    let code = ptx.lines().map(|l| l.split("//").next().unwrap_or("").trim()).filter(|l| l.ends_with(';') && !l.starts_with('.'));
    code.map(|l| if l.starts_with('@') { l.split_once([' ', '\t']).map_or(l, |(_, rest)| rest.trim()) } else { l })
        .filter_map(|l| l.split([' ', '\t', ';']).next())
}

fn is_float(mnemonic: &str) -> bool {
    mnemonic.split('.').any(|part| matches!(part, "f16" | "f16x2" | "bf16" | "bf16x2" | "f32" | "f64"))
}

/// What would give other bits than the reference.
fn is_forbidden(mnemonic: &str) -> bool {
    let mut parts = mnemonic.split('.');
    let operation = parts.next().unwrap_or("");
    let fused = is_float(mnemonic) && matches!(operation, "fma" | "mad");
    let rounds = matches!(operation, "add" | "sub" | "mul" | "div" | "sqrt" | "rcp" | "rsqrt");
    let other_rounding = is_float(mnemonic) && rounds && !mnemonic.split('.').any(|part| part == "rn");
    fused || other_rounding || mnemonic.split('.').any(|part| matches!(part, "approx" | "ftz" | "full"))
}

#[test]
fn arithmetic_is_rounded_correctly_and_not_fused() {
    for (name, ptx, _) in FILES {
        let forbidden: Vec<&str> = instructions(ptx).filter(|i| is_forbidden(i)).collect();
        assert!(forbidden.is_empty(), "ptx/{name}.ptx: {forbidden:?}");
    }
    let all = || FILES.iter().flat_map(|(_, ptx, _)| instructions(ptx));
    for needed in ["div.rn.f32", "sqrt.rn.f32", "div.rn.f64", "sqrt.rn.f64", "mul.rn.f32", "add.rn.f64"] {
        assert!(all().any(|i| i == needed), "{needed} is found nowhere: are instructions read at all?");
    }
}

#[test]
fn what_is_forbidden_is_told_from_what_is_not() {
    let ptx = "\tfma.rn.f32 \t%f1, %f2;\n\t@%p1 div.full.f32 %f3;\n\tmad.lo.s32 %r1;\n\tadd.f32 %f1;\n\tadd.ftz.f32 %f1;\n\
               \tsqrt.approx.f32 %f1;\n\tdiv.rn.f64 %f1; // fma.rn\n\tadd.s64 %r2;\n\tadd.rn.f32 %f1;\n.reg .f32 %f<3>;\n";
    let forbidden: Vec<&str> = instructions(ptx).filter(|i| is_forbidden(i)).collect();
    assert_eq!(forbidden, ["fma.rn.f32", "div.full.f32", "add.f32", "add.ftz.f32", "sqrt.approx.f32"]);
}

/// Kernels that a file defines, and the bytes of what each takes.
fn entries(ptx: &str) -> Vec<(&str, usize)> {
    let size = |parameters: &str| parameters.split_once("_param_0[")?.1.split_once(']')?.0.parse().ok();
    ptx.split(".entry ")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once('(').expect("an entry's parameters");
            let parameters = rest.split_once(')').expect("their end").0;
            assert_eq!(parameters.matches(".param").count(), 1, "{name} takes one structure");
            assert!(parameters.contains(".align 8"), "{name}: {parameters}");
            (name.trim(), size(parameters).expect("its size"))
        })
        .collect()
}

#[test]
fn each_file_defines_its_kernels_and_their_structures_are_as_large_as_here() {
    for (name, ptx, suffixes) in FILES {
        let size = SIZES.iter().find(|(kernel, _)| kernel == name).unwrap_or_else(|| panic!("{name} has no structure")).1;
        let mut want: Vec<(String, usize)> = suffixes.iter().map(|s| (format!("{name}{s}"), size)).collect();
        let mut got: Vec<(String, usize)> = entries(ptx).into_iter().map(|(n, size)| (n.to_string(), size)).collect();
        want.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, want, "ptx/{name}.ptx");
        // What any device takes of arguments.
        assert!(size <= 4096, "{name}: {size} bytes");
    }
    assert_eq!(FILES.len(), SIZES.len());
}

#[test]
fn old_drivers_and_devices_are_served() {
    for (name, ptx, _) in FILES {
        let directives: Vec<&str> = ptx.lines().filter(|l| l.starts_with(".version") || l.starts_with(".target")).collect();
        // PTX 8.0 came with CUDA 12.0, which is what the error of an older driver says.
        assert_eq!(directives, [".version 8.0", ".target sm_60"], "ptx/{name}.ptx");
    }
    assert_eq!(crate::error::OLDEST_DRIVER, 12_000);
}
