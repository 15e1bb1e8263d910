//! run_log
