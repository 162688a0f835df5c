//! The kernels compiled for cards, and what is said where there is none.

use std::process::Command;

use lipstream_engines::cuda::{Card, arguments::KERNELS, nvrtc};

/// Whether libnvrtc is here; says so where it is not.
fn compiler() -> bool {
    match nvrtc::version() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("kernels are not compiled for cards: skipped, {error}");
            false
        }
    }
}

#[test]
fn every_kernel_compiles_for_every_card_without_a_warning() {
    if !compiler() {
        return;
    }
    for architecture in [75, 80, 86, 89, 90, 100] {
        let made = nvrtc::kernels(&format!("compute_{architecture}")).unwrap();
        assert_eq!(made.log, "", "compute_{architecture}");
        assert!(made.code.contains(&format!(".target sm_{architecture}")));
        for kernel in KERNELS {
            assert!(made.code.contains(&format!(".entry {kernel}(")), "compute_{architecture}: {kernel}");
        }
    }
}

#[test]
fn no_kernel_spills_registers() {
    if !compiler() {
        return;
    }
    for architecture in ["sm_75", "sm_90"] {
        let log = nvrtc::usage(architecture).unwrap();
        let mut kernel = "";
        let mut seen = 0;
        for line in log.lines() {
            if let Some((_, rest)) = line.split_once("entry function '") {
                kernel = rest.split('\'').next().unwrap_or_default();
            } else if line.contains("spill stores") {
                assert!(line.contains("0 bytes spill stores, 0 bytes spill loads"), "{architecture} {kernel}: {line}");
            } else if let Some((_, used)) = line.split_once("Used ") {
                println!("{architecture} {kernel}: {used}");
                seen += 1;
            }
        }
        assert_eq!(seen, KERNELS.len(), "{log}");
    }
}

#[test]
fn a_program_that_does_not_compile_gives_the_compilers_own_words() {
    if !compiler() {
        return;
    }
    let files = [("part.h", "int wrong = ;\n")];
    let broken = nvrtc::compile("broken.cu", "#include \"part.h\"\n", &files, &[]).err().unwrap().to_string();
    assert!(broken.contains("broken.cu does not compile") && broken.contains("part.h(1): error: "), "{broken}");
    let unknown = nvrtc::kernels("compute_1").err().unwrap().to_string();
    assert!(unknown.contains("kernels.cu does not compile") && unknown.contains("--gpu-architecture"), "{unknown}");
}

#[test]
fn a_card_that_is_not_there_is_named_with_its_cure() {
    let error = match Card::open(0) {
        Ok(_) => Card::open(999).err().unwrap().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(error.starts_with("device `cuda:") && error.contains("use device=cpu"), "{error}");
    println!("{error}");
}

#[test]
fn a_machine_without_nvrtc_is_told_what_to_install() {
    const ALONE: &str = "LIPSTREAM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        println!("{}", nvrtc::version().map_or_else(|error| error.to_string(), |version| format!("found {version:?}")));
        return;
    }
    // Above another folder there is no .lipstream.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("alone");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut alone = Command::new(&program);
    alone.args(["--exact", "a_machine_without_nvrtc_is_told_what_to_install", "--nocapture"]).env(ALONE, "1");
    let said = String::from_utf8_lossy(&alone.output().unwrap().stdout).into_owned();
    let missing = said.contains("NVRTC: libnvrtc.so was not found; run `make setup-gpu`");
    assert!(missing || said.contains("found ("), "{said}");
}
