//! The `rlt` command line.
fn main() {}
