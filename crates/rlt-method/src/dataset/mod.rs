//! Rows: what comes in and what goes out.
//!
//! [`read_questions`] and [`read_traces`] take a .jsonl, .json, .csv or .parquet file, a folder of them or
//! a data set of the Hugging Face hub; every column they do not use is carried through in
//! [`QuestionRow::columns`]. [`JsonlWriter`] and [`RowWriter`] write rows so that a reader never sees half a
//! file. [`RecordStream`] and [`rlt_files::ResumableWriter`] do both in bounded memory.

mod conversation;
mod file_kind;
mod files;
mod hub;
mod measured;
mod open;
mod parquet;
mod question;
mod record;
mod source;
mod stream;
mod trace;
mod writer;

pub use open::check_can_be_read_again;
pub use question::{
    GapRow, QuestionRow, UsableQuestions, question_of, read_questions, read_texts, read_usable_questions,
};
pub use record::Record;
pub use stream::{RecordStream, read_records};
pub use trace::{Finish, TraceRow, read_traces, traces_of};
pub use writer::{JsonlWriter, RowWriter};
