//! Runs a program on many frames and takes the time: the bench's own kernel programs (`lb-ebpf/src/bench.rs`).

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, Map, MapData, MapError, ProgramArray},
    programs::{ProgramFd, Xdp},
};
use lb_common::bench::{CHUNK, CHUNKS, Chunk, Course, Flow};
use rustix::time::{ClockId, clock_gettime};

use super::packets::Shape;

/// What is run behind the program that makes frames.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A program that does nothing.
    Null,
    /// A program that pushes 20 bytes and fills them.
    Push,
    /// The program under test.
    Tested(&'a ProgramFd),
}

/// The loaded programs of the bench.
pub struct Harness {
    ebpf: Ebpf,
    /// What the names of the programs end with.
    suffix: &'static str,
    course: Array<MapData, Course>,
    flows: Array<MapData, Chunk>,
    record: Array<MapData, Chunk>,
    programs: ProgramArray<MapData>,
    /// The frame of the course.
    frame: Vec<u8>,
}

impl Harness {
    /// Loads the programs in the variant that can go on to `tested`: tail calls join only programs that agree
    /// on `xdp.frags`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load(object: &[u8], tested: &ProgramFd) -> Result<Self> {
        let mut refusal = None;
        for suffix in ["_frags", ""] {
            // Kernels before 5.18 do not know the flag.
            let attempt = Self::load_variant(object, suffix).and_then(|mut harness| {
                harness.programs.set(0, tested, 0).context("the program under test cannot be tail-called")?;
                Ok(harness)
            });
            match attempt {
                Ok(harness) => return Ok(harness),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.context("no variant was tried")?)
    }

    fn load_variant(object: &[u8], suffix: &'static str) -> Result<Self> {
        let mut ebpf = Ebpf::load(object).context("the bench's own object does not load")?;
        for name in ["reset", "record", "null", "push"] {
            program(&mut ebpf, &format!("{name}{suffix}"))?
                .load()
                .with_context(|| format!("the kernel refuses the bench's program {name}{suffix}"))?;
        }
        Ok(Self {
            course: take(&mut ebpf, "COURSE")?,
            flows: take(&mut ebpf, "FLOWS")?,
            record: take(&mut ebpf, "RECORD")?,
            programs: take(&mut ebpf, "PROGRAMS")?,
            suffix,
            ebpf,
            frame: Vec::new(),
        })
    }

    /// Says which program is run.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn subject(&mut self, subject: Subject<'_>) -> Result<()> {
        let name = match subject {
            Subject::Null => "null",
            Subject::Push => "push",
            Subject::Tested(program) => return Ok(self.programs.set(0, program, 0)?),
        };
        let fd = program(&mut self.ebpf, &format!("{name}{}", self.suffix))?.fd()?.try_clone()?;
        Ok(self.programs.set(0, &fd, 0)?)
    }

    /// Says which frames are made: of this shape, for these flows in turn.
    ///
    /// # Errors
    /// When the kernel refuses, or there are too many flows.
    pub fn course(&mut self, shape: &Shape, flows: &[Flow]) -> Result<()> {
        ensure!(!flows.is_empty() && flows.len() <= CHUNK * CHUNKS, "{} flows", flows.len());
        for (number, flows) in flows.chunks(CHUNK).enumerate() {
            let mut chunk = Box::new(Chunk([Flow::default(); CHUNK]));
            chunk.0[..flows.len()].copy_from_slice(flows);
            let chunk: &Chunk = &chunk;
            self.flows.set(number as u32, chunk, 0)?;
        }
        self.course.set(0, shape.course(flows.len() as u32), 0)?;
        self.frame.clone_from(&shape.frame);
        Ok(())
    }

    /// Makes this many frames and runs the subject on them; gives the time that one took, in nanoseconds of
    /// this thread: time in which others have the processor is none.
    ///
    /// # Errors
    /// When the kernel refuses, or a program could not go on.
    pub fn run(&mut self, packets: u32) -> Result<f64> {
        self.run_program("reset", packets)
    }

    /// Makes one frame for each flow and runs the subject on it; gives the words that the shape of the course
    /// names, as they are in what came out, flow by flow.
    ///
    /// # Errors
    /// When the kernel refuses, or a program could not go on.
    pub fn record(&mut self) -> Result<Vec<Flow>> {
        let course = self.course.get(&0, 0)?;
        let flows = course.flows as usize;
        self.course.set(0, Course { position: 0, ..course }, 0)?;
        // What a frame has become is seen by the run after it.
        self.run_program("record", course.flows + 1)?;
        let mut recorded = Vec::with_capacity(flows);
        for number in 0..flows.div_ceil(CHUNK) {
            recorded.extend_from_slice(&self.record.get(&(number as u32), 0)?.0);
        }
        recorded.truncate(flows);
        Ok(recorded)
    }

    fn run_program(&mut self, name: &str, packets: u32) -> Result<f64> {
        let program = program(&mut self.ebpf, &format!("{name}{}", self.suffix))?;
        let options = TestRunOptions { data_in: Some(&self.frame), repeat: packets, ..TestRunOptions::new() };
        let begin = own_time();
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        let time = own_time() - begin;
        if result.return_value == 0 {
            bail!("the program under test gave up on a frame (XDP_ABORTED)");
        }
        Ok(time.as_nanos() as f64 / f64::from(packets))
    }
}

/// Time that this thread has had a processor.
fn own_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("the bench's object has no {name}"))?;
    Ok(program.try_into()?)
}

fn take<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    let map = ebpf.take_map(name).with_context(|| format!("the bench's object has no map {name}"))?;
    Ok(M::try_from(map)?)
}
