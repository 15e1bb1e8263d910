//! What an emulator does not pass on to the program that it runs.

/// Whether programs run under an emulator here (`.ci/arm` says so by `RLT_TEST_EMULATED`) and the test is to be skipped for that,
/// because of `why`; prints that line.
#[allow(clippy::print_stdout, reason = "it says what is skipped")]
pub fn under_emulation(why: &str) -> bool {
    let is = std::env::var_os("RLT_TEST_EMULATED").is_some();
    if is {
        println!("skipped under an emulator: {why}");
    }
    is
}
