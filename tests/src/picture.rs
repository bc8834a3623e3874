//! Pictures of pages, compared with approved ones so that another machine's rendering of fonts does not
//! matter, but a part that is missing, elsewhere or of another colour does.
//!
//! Both are averaged over squares of [`CELL`] pixels. A square differs when a colour of it is off by more
//! than [`OFF`] of 255; pictures differ when more than [`SHARE`] of a thousand squares do.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Side of a square, pixels.
const CELL: usize = 10;
const OFF: i32 = 24;
const SHARE: usize = 5;

/// A picture, three bytes a pixel.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Compares a PNG (in base64) with the approved one of this name in `folder`. What differs is an error that
/// names the picture, which is kept in `kept`. With `THINGLOG_APPROVE=1` it becomes the approved one.
pub fn compare(folder: &Path, kept: &Path, name: &str, shown: &str) -> Result<(), String> {
    let shown = BASE64.decode(shown).map_err(|error| error.to_string())?;
    let approved = folder.join(format!("{name}.png"));
    if std::env::var("THINGLOG_APPROVE").is_ok_and(|value| value == "1") {
        return fs::write(&approved, shown).map_err(|error| error.to_string());
    }
    let told = match fs::read(&approved) {
        Ok(bytes) => differences(&decode(&bytes)?, &decode(&shown)?),
        Err(error) => Some(format!("{}: {error}", approved.display())),
    };
    let Some(told) = told else { return Ok(()) };
    fs::create_dir_all(kept).map_err(|error| error.to_string())?;
    let kept = kept.join(format!("{name}.png"));
    fs::write(&kept, shown).map_err(|error| error.to_string())?;
    Err(format!(
        "{name}: {told}; look at {} beside {}, and approve it by THINGLOG_APPROVE=1 if it is right",
        kept.display(),
        approved.display()
    ))
}

/// What differs, if it is too much.
fn differences(approved: &Picture, shown: &Picture) -> Option<String> {
    let size = |picture: &Picture| (picture.width, picture.height);
    if size(approved) != size(shown) {
        return Some(format!("{:?} instead of {:?}", size(shown), size(approved)));
    }
    let cells = approved.cells().into_iter().zip(shown.cells());
    let all = approved.width.div_ceil(CELL) * approved.height.div_ceil(CELL);
    let differ = cells
        .enumerate()
        .filter(|(_, (a, b))| a.iter().zip(b).any(|(a, b)| (a - b).abs() > OFF));
    let places: Vec<(usize, usize)> = differ
        .map(|(n, _)| {
            let row = approved.width.div_ceil(CELL);
            (n % row * CELL, n / row * CELL)
        })
        .collect();
    let (first, last) = (places.first()?, places.last()?);
    (places.len() * 1000 > all * SHARE).then(|| {
        format!(
            "{} of {all} squares differ, from {first:?} to {last:?}",
            places.len()
        )
    })
}

impl Picture {
    /// The mean colours of squares, row by row.
    fn cells(&self) -> Vec<[i32; 3]> {
        let (across, down) = (self.width.div_ceil(CELL), self.height.div_ceil(CELL));
        let mut sums = vec![([0; 3], 0); across * down];
        for (n, pixel) in self.pixels.chunks_exact(3).enumerate() {
            let (x, y) = (n % self.width / CELL, n / self.width / CELL);
            let (sum, count) = &mut sums[y * across + x];
            *count += 1;
            for (sum, value) in sum.iter_mut().zip(pixel) {
                *sum += i32::from(*value);
            }
        }
        sums.into_iter()
            .map(|(sum, count)| sum.map(|sum| sum / count.max(1)))
            .collect()
    }
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let size = reader.output_buffer_size().ok_or("too large")?;
    let mut pixels = vec![0; size];
    let info = reader
        .next_frame(&mut pixels)
        .map_err(|error| error.to_string())?;
    let samples = info.color_type.samples();
    if samples < 3 {
        return Err(format!("{:?} is no colour", info.color_type));
    }
    let colours = pixels.chunks_exact(samples).flat_map(|pixel| &pixel[..3]);
    Ok(Picture {
        width: info.width as usize,
        height: info.height as usize,
        pixels: colours.copied().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(colour: u8) -> Picture {
        Picture {
            width: 200,
            height: 100,
            pixels: vec![colour; 200 * 100 * 3],
        }
    }

    #[test]
    fn a_shade_or_a_few_pixels_do_not_matter_but_a_missing_part_does() {
        assert_eq!(differences(&plain(100), &plain(110)), None);
        assert!(differences(&plain(100), &plain(200)).is_some());
        let mut other = plain(100);
        other.pixels[..30].fill(255);
        assert_eq!(differences(&plain(100), &other), None);
        for row in 0..10 {
            other.pixels[row * 600..row * 600 + 150].fill(255);
        }
        let told = differences(&plain(100), &other).unwrap();
        assert!(told.contains("5 of 200"), "{told}");
    }
}
