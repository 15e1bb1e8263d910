//! Rows: what comes in and what goes out.
//!
//! [`read_questions`] and [`read_traces`] take a .jsonl, .json, .csv or .parquet file, a folder of them or
//! a data set of the Hugging Face hub; every column they do not use is carried through in
//! [`QuestionRow::columns`]. [`JsonlWriter`] and [`RowWriter`] write rows so that a reader never sees half a
//! file.

mod conversation;
mod files;
mod hub;
mod parquet;
mod question;
mod source;
mod trace;
mod writer;

pub use question::{QuestionRow, read_questions, read_texts};
pub use source::{Record, read_records};
pub use trace::{Finish, TraceRow, read_traces};
pub use writer::{JsonlWriter, RowWriter};
