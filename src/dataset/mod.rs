//! Rows: what comes in and what goes out.
//!
//! [`read_questions`] and [`read_traces`] take a .jsonl, .json or .csv file or a folder of them; every
//! column they do not use is carried through in [`QuestionRow::columns`]. [`JsonlWriter`] writes rows so
//! that a reader never sees half a file.

mod conversation;
mod question;
mod source;
mod trace;
mod writer;

pub use question::{QuestionRow, read_questions, read_texts};
pub use source::{Record, read_records};
pub use trace::{Finish, TraceRow, read_traces};
pub use writer::JsonlWriter;
