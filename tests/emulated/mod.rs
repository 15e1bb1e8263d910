//! What an emulator does not pass on to the program that it runs, and how much longer that takes.

/// Whether programs run under an emulator here: `.ci/arm` says so by `RLT_TEST_EMULATED`.
pub fn is_emulated() -> bool {
    std::env::var_os("RLT_TEST_EMULATED").is_some()
}

/// What a test waits for at most, seconds: `real` on a processor, 20 times as long under an emulator, which takes that
/// long for the same work.
#[allow(dead_code, reason = "not every test file waits")]
pub fn patience(real: f64) -> f64 {
    if is_emulated() { 20.0 * real } else { real }
}

/// Whether the test is to be skipped because programs run under an emulator here: `why` says what that changes; prints that line.
#[allow(dead_code, reason = "not every test file skips")]
#[allow(clippy::print_stdout, reason = "it says what is skipped")]
pub fn under_emulation(why: &str) -> bool {
    let is = is_emulated();
    if is {
        println!("skipped under an emulator: {why}");
    }
    is
}
