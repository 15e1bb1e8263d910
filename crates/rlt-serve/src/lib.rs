//! A decoder behind the HTTP endpoints that samplers, scorers and trainers use of vLLM, with the same JSON.
//!
//! Requests that wait are done together in one call of the engine. The numbers are the engine's own: what
//! `Decoder::token_logprobs` gives, bit for bit, and completions that depend on the request's seed alone, whatever else
//! is asked for at the same time.
//!
//! Whoever can reach it can use it, within bounds: of connections, of bytes in memory, of tokens in a request, of requests
//! that wait. A request opens no file, except a folder of weights below one that was allowed at the start.

mod completions;
mod endpoints;
mod engine;
mod fields;
mod http;
mod queue;
mod refusal;
mod server;
mod weights;

pub use server::{Served, Server, Settings};
