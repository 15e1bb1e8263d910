//! A block by AMX: `tdpbf16ps` adds the products of 16 x 32 and 32 x 16 numbers to 16 x 16 sums.
//!
//! The compiler's intrinsics for it are not stable yet, so the few instructions are written out. Tile registers are
//! not used by compiled code, and are given up at the end of every task, so that threads do not carry them around.

use std::arch::asm;

use super::block::Block;
use super::tile_size::{TILE_ROWS, TILE_WORDS};
use crate::instructions::InstructionSet;
use crate::tile::PANEL;

/// Whether AMX is in use.
pub(super) fn is_available() -> bool {
    InstructionSet::in_use() >= InstructionSet::Amx
}

/// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE_TILES: TileConfiguration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = 64;
        rows[tile] = TILE_ROWS as u8;
        tile += 1;
    }
    TileConfiguration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// Runs `work` with this thread's tile registers set up.
pub(super) fn configured(work: impl FnOnce()) {
    /// Also when `work` panics.
    struct Release;
    impl Drop for Release {
        fn drop(&mut self) {
            // SAFETY: only who has AMX comes here; nobody else uses the tiles.
            unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
        }
    }
    // SAFETY: as above; the configuration is valid.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(readonly, nostack, preserves_flags));
    };
    let _release = Release;
    work();
}

/// Bytes between the rows of a panel's tile.
const PANEL_BYTES: usize = PANEL * 4;

/// # Safety
/// As [`super::dot::block`], with AMX, inside [`configured`]; whole multiples of 16 rows are written.
pub(super) unsafe fn block(block: &Block) {
    let stride = block.stride * 4;
    let (a0, a1, b) = (block.a[0].as_ptr(), block.a[1].as_ptr(), block.b.as_ptr());
    let (out0, out1) = (block.out, block.out.wrapping_add(TILE_ROWS * block.stride));
    // SAFETY: tile by tile inside the two factors and the output, by the caller's promise.
    unsafe {
        if block.rows > TILE_ROWS {
            if block.add {
                asm!(
                    "tileloadd tmm0, [{out0} + {stride}]",
                    "tileloadd tmm1, [{out0} + {stride} + 64]",
                    "tileloadd tmm2, [{out1} + {stride}]",
                    "tileloadd tmm3, [{out1} + {stride} + 64]",
                    out0 = in(reg) out0, out1 = in(reg) out1, stride = in(reg) stride,
                    options(readonly, nostack, preserves_flags),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nomem, nostack, preserves_flags),
                );
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {a_stride}]",
                "tileloadd tmm6, [{b} + {b_stride}]",
                "tileloadd tmm7, [{b} + {b_stride} + 64]",
                "tileloadd tmm5, [{a1} + {a_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, {tile}",
                "add {a1}, {tile}",
                "add {b}, {panel}",
                "dec {n}",
                "jnz 2b",
                a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _, b = inout(reg) b => _,
                n = inout(reg) block.tiles => _,
                a_stride = in(reg) TILE_WORDS * 4, b_stride = in(reg) PANEL_BYTES,
                tile = const TILE_ROWS * TILE_WORDS * 4, panel = const TILE_WORDS * PANEL_BYTES,
                options(readonly, nostack),
            );
            asm!(
                "tilestored [{out0} + {stride}], tmm0",
                "tilestored [{out0} + {stride} + 64], tmm1",
                "tilestored [{out1} + {stride}], tmm2",
                "tilestored [{out1} + {stride} + 64], tmm3",
                out0 = in(reg) out0, out1 = in(reg) out1, stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        } else {
            if block.add {
                asm!(
                    "tileloadd tmm0, [{out0} + {stride}]",
                    "tileloadd tmm1, [{out0} + {stride} + 64]",
                    out0 = in(reg) out0, stride = in(reg) stride,
                    options(readonly, nostack, preserves_flags),
                );
            } else {
                asm!("tilezero tmm0", "tilezero tmm1", options(nomem, nostack, preserves_flags));
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {a_stride}]",
                "tileloadd tmm6, [{b} + {b_stride}]",
                "tileloadd tmm7, [{b} + {b_stride} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a0}, {tile}",
                "add {b}, {panel}",
                "dec {n}",
                "jnz 2b",
                a0 = inout(reg) a0 => _, b = inout(reg) b => _, n = inout(reg) block.tiles => _,
                a_stride = in(reg) TILE_WORDS * 4, b_stride = in(reg) PANEL_BYTES,
                tile = const TILE_ROWS * TILE_WORDS * 4, panel = const TILE_WORDS * PANEL_BYTES,
                options(readonly, nostack),
            );
            asm!(
                "tilestored [{out0} + {stride}], tmm0",
                "tilestored [{out0} + {stride} + 64], tmm1",
                out0 = in(reg) out0, stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }
}
