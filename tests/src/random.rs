//! Repeatable chance: a seed is printed with every run and can be given again.

/// xorshift64*.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// From the environment variable `name`, or by chance.
    pub fn from_env(name: &str) -> Random {
        let given = std::env::var(name).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("random numbers");
            u64::from_le_bytes(bytes) >> 32
        });
        eprintln!("{name}={seed} repeats this run's choices");
        Random::new(seed)
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}
