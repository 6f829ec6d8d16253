//! Takes flows from the records of a former program to those of one that lays them out differently.
//!
//! ```text
//! the old program is told to begin no flow ─ every record is copied ─ the programs change places
//! ```
//!
//! Who finds which record is told by tables that both programs use, so a record keeps its number. For the time of the
//! copying, some milliseconds, the first packets of new flows are dropped, and sent again by who sent them: one that was
//! let in would not be copied, and its next packet be one of no known flow. The order passes by itself ([`HELD`]), so
//! that a start which is killed meanwhile has forbidden nothing for long. What packets of older flows add to a record after it
//! was copied is lost: a sign of life, or that one side has ended; the next packet says it again.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use aya::maps::{Array, MapData};
use lb_common::abi::{Claim, Settings, WAYS};
use tracing::info;

use super::{
    Error,
    flows::{Lines, tick},
    mapped::Mapped,
    pins::{Kept, Pins, open},
};
use crate::takeover::layout::Translation;

/// What is to be translated: maps, and how.
pub type Changed = BTreeMap<&'static str, Translation>;

/// Records, and the claims to them.
pub(super) const RECORDS: [(&str, &str); 2] = [("FLOWS4", "CLAIMS4"), ("FLOWS6", "CLAIMS6")];

/// Ticks for which no flow begins, should nobody take the order back: at least one second, at most two.
const HELD: u32 = 2;

/// No packet takes longer on its way through the program: what began a flow before the order has entered it by then.
const IN_HAND: Duration = Duration::from_millis(5);

/// The settings of whatever version.
type RawSettings = [u8; size_of::<Settings>()];

/// What is to be done before a program takes the place of another.
pub struct Moving {
    parts: Vec<Part>,
    settings: Array<MapData, RawSettings>,
    /// Where the old program reads for how long it is to hold.
    hold_at: usize,
}

struct Part {
    claims: Lines,
    old: Mapped<[AtomicU64; 1]>,
    new: Mapped<[AtomicU64; 1]>,
    /// Words of a record of either.
    words: (usize, usize),
    translation: Translation,
}

impl Moving {
    /// From the pinned maps of one start to those of the next. `hold_at` is where the old settings have that field.
    ///
    /// # Errors
    /// When a map is not what it should be.
    pub(super) fn prepare(
        kept: &Kept,
        pins: &Pins,
        changed: &Changed,
        hold_at: usize,
    ) -> Result<Self, Error> {
        let mut parts = Vec::new();
        for (records, claims) in RECORDS {
            let Some(translation) = changed.get(records) else { continue };
            let (old, old_words) = Mapped::words(MapData::from_pin(kept.map(records)), records)?;
            let (new, new_words) = Mapped::words(MapData::from_pin(pins.map(records)), records)?;
            let claims = Mapped::pinned(MapData::from_pin(kept.map(claims)), claims)?;
            let words = (old_words, new_words);
            parts.push(Part { claims, old, new, words, translation: translation.clone() });
        }
        Ok(Self { parts, settings: open(&kept.map("SETTINGS"))?, hold_at })
    }

    /// Copies the flows. The program is to be attached right after.
    ///
    /// # Errors
    /// When a map cannot be read or written. The old program then begins flows again.
    pub fn carry_over(mut self) -> Result<(), Error> {
        self.hold(tick() + HELD)?;
        thread::sleep(IN_HAND);
        let copied = self.parts.iter().try_fold(0, |sum, part| Ok(sum + part.copy()?));
        match copied {
            Ok(flows) => {
                info!(
                    "the tables of the lb-user before are laid out differently: {flows} flows were carried over"
                );
                Ok(())
            }
            Err(problem) => {
                self.hold(0)?;
                Err(Error(problem))
            }
        }
    }

    /// Has the old program begin no flow until a tick.
    fn hold(&mut self, until: u32) -> Result<(), Error> {
        let mut settings = self.settings.get(&0, 0)?;
        let end = self.hold_at + size_of::<u32>();
        let room = settings.get_mut(self.hold_at..end).ok_or_else(|| {
            Error(format!("the settings of the lb-user before have no byte {}", self.hold_at))
        })?;
        room.copy_from_slice(&until.to_ne_bytes());
        Ok(self.settings.set(0, settings, 0)?)
    }
}

impl Part {
    /// Copies every record that is claimed; gives how many.
    fn copy(&self) -> Result<usize, String> {
        let ((old_words, new_words), mut copied) = (self.words, 0);
        let mut record = Vec::with_capacity(old_words * 8);
        for line in 0..self.claims.len() {
            for (way, entry) in self.claims.get(line).iter().enumerate() {
                if Claim(entry.load(Relaxed)).is_empty() {
                    continue;
                }
                let number = line * WAYS + way;
                record.clear();
                for word in 0..old_words {
                    record.extend(self.old.get(number * old_words + word)[0].load(Relaxed).to_ne_bytes());
                }
                let new = self.translation.of(&record, new_words * 8)?;
                for (word, bytes) in new.as_chunks().0.iter().enumerate() {
                    self.new.get(number * new_words + word)[0].store(u64::from_ne_bytes(*bytes), Relaxed);
                }
                copied += 1;
            }
        }
        Ok(copied)
    }
}
