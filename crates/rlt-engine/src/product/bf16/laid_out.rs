//! A factor in its kernel's layout.

/// A right factor that was laid out as a whole.
#[derive(Clone, Copy)]
pub(crate) struct LaidOut<'a> {
    pub words: &'a [u32],
    /// Tiles of its inner dimension.
    pub tiles: usize,
}
