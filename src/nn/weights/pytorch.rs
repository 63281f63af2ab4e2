//! PyTorch's `.pt`: a ZIP archive with a pickle that describes tensors, and their bytes beside it.
//!
//! Reads a `state_dict`, plain or inside a checkpoint's dictionaries. Runs nothing that a pickle
//! asks for: whatever is not a dictionary of tensors is refused with what to do about it.

use std::io::{Cursor, Read};

use candle_core::DType;
use zip::ZipArchive;

use super::pickle::{MAX_PICKLE_BYTES, Pickle, Value};
use super::{MAX_FILE_BYTES, MAX_TENSORS, NamedWeights, floats};
use crate::error::{Error, Result};
use crate::nn::layer::MAX_WEIGHTS;

/// Deepest nesting of dictionaries that tensors are looked for in.
const MAX_DEPTH: usize = 3;
/// Most entries that are looked at in all of them; one that is in many counts in each.
const MAX_ENTRIES: usize = 1 << 16;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Reads all floating-point tensors of an archive.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<NamedWeights>> {
    let broken = |error| Error::Model(format!("a broken archive of PyTorch: {error}"));
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let names: Vec<String> = archive.file_names().flatten().map(|name| name.into_owned()).collect();
    let Some(folder) = names.iter().find_map(|name| name.strip_suffix("data.pkl")) else {
        return Err(Error::Model("an archive without data.pkl: torch.save wrote none".to_owned()));
    };
    if let Some(order) = names.iter().find(|name| *name == &format!("{folder}byteorder"))
        && entry(&mut archive, order, 16)? != b"little"
    {
        return Err(Error::Model(
            "weights saved on a big-endian machine; save them as safetensors there".to_owned(),
        ));
    }
    let pickle = entry(&mut archive, &format!("{folder}data.pkl"), MAX_PICKLE_BYTES)?;
    let pickle = Pickle::read(&pickle).map_err(|what| {
        Error::Model(format!("data.pkl cannot be read: {what}. {}", how_to_save("model")))
    })?;
    let Some(top) = pickle.dictionary(pickle.top()) else {
        let class = pickle.first_class(pickle.top()).unwrap_or("no dictionary");
        return Err(Error::Model(format!(
            "a pickled module ({class}), which only the program that wrote it can open. {}",
            how_to_save("model")
        )));
    };
    let mut found = Vec::new();
    let mut room = MAX_ENTRIES;
    collect(&pickle, top, "", (MAX_DEPTH, &mut room), &mut found)?;
    found.retain(|(_, description)| description.dtype.is_some());
    if found.len() > MAX_TENSORS {
        return Err(Error::Model(format!("{} tensors: {MAX_TENSORS} are possible", found.len())));
    }
    let (mut weights, mut room) = (Vec::new(), MAX_WEIGHTS);
    for (name, description) in found {
        let values = description
            .values(&mut archive, folder, room)
            .map_err(|error| Error::Model(format!("tensor {name}: {error}")))?;
        room -= values.len();
        weights.push(NamedWeights { name, shape: description.shape, values });
    }
    Ok(weights)
}

/// What to type in Python for a file that can be read.
pub(super) fn how_to_save(model: &str) -> String {
    format!("In Python: torch.save({model}.state_dict(), \"model.pt\")")
}

/// A tensor as a pickle describes it.
struct Description {
    /// None where it holds no floats.
    dtype: Option<DType>,
    key: String,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Description {
    /// From the call that rebuilds a tensor, or a parameter around one.
    fn of(pickle: &Pickle, value: Value) -> Option<Description> {
        let called = |value| {
            let (function, arguments) = pickle.call(value)?;
            Some((pickle.class(function)?, pickle.items(arguments)?))
        };
        let (mut function, mut arguments) = called(value)?;
        if function == "torch._utils _rebuild_parameter" {
            (function, arguments) = called(*arguments.first()?)?;
        }
        if function != "torch._utils _rebuild_tensor_v2" {
            return None;
        }
        let [storage, offset, shape, strides, ..] = arguments else { return None };
        let storage = pickle.items(pickle.persistent(*storage)?)?;
        let [_, class, key, ..] = storage else { return None };
        let sizes = |value| -> Option<Vec<usize>> {
            pickle.items(value)?.iter().map(|&size| pickle.size(size)).collect()
        };
        Some(Description {
            dtype: match pickle.class(*class)? {
                "torch DoubleStorage" => Some(DType::F64),
                "torch FloatStorage" => Some(DType::F32),
                "torch HalfStorage" => Some(DType::F16),
                "torch BFloat16Storage" => Some(DType::BF16),
                _ => None,
            },
            key: pickle.text(*key)?.to_owned(),
            offset: pickle.size(*offset)?,
            shape: sizes(*shape)?,
            strides: sizes(*strides)?,
        })
    }

    /// Its values, row-major, of which there may be at most `room`.
    fn values(&self, archive: &mut Archive<'_>, folder: &str, room: usize) -> Result<Vec<f32>> {
        let Description { shape, strides, offset, .. } = self;
        let n = shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        let n = n.filter(|_| shape.len() == strides.len() && shape.len() <= MAX_DIMENSIONS);
        let Some(n) = n.filter(|n| *n <= room) else {
            return Err(Error::Model(format!(
                "shape {shape:?} is impossible or too large: all tensors together may hold \
                 {MAX_WEIGHTS} values"
            )));
        };
        let dtype = self.dtype.unwrap_or(DType::F32);
        let bytes = entry(archive, &format!("{folder}data/{}", self.key), MAX_FILE_BYTES)?;
        let storage = floats(&bytes, dtype)?;
        let mut values = Vec::with_capacity(n.min(storage.len()));
        let inside = n == 0
            || (n <= storage.len() && self.gather(&storage, 0, *offset, &mut values).is_some());
        if inside {
            return Ok(values);
        }
        Err(Error::Model(format!(
            "shape {shape:?} with strides {strides:?} from {offset} leaves its {} stored values; \
             is the file cut short?",
            storage.len()
        )))
    }

    /// Appends what lies at `at` from dimension `d` on; `None` outside the storage.
    fn gather(&self, storage: &[f32], d: usize, at: usize, values: &mut Vec<f32>) -> Option<()> {
        if d == self.shape.len() {
            values.push(*storage.get(at)?);
            return Some(());
        }
        for k in 0..self.shape[d] {
            let at = at.checked_add(k.checked_mul(self.strides[d])?)?;
            self.gather(storage, d + 1, at, values)?;
        }
        Some(())
    }
}

/// All tensors of a dictionary and of those in it, with the names that lead there.
///
/// # Errors
/// Where there are more entries than there is room for.
fn collect(
    pickle: &Pickle,
    dictionary: &[(Value, Value)],
    prefix: &str,
    (depth, room): (usize, &mut usize),
    found: &mut Vec<(String, Description)>,
) -> Result<()> {
    let Some(left) = room.checked_sub(dictionary.len()) else {
        return Err(Error::Model(format!("dictionaries of more than {MAX_ENTRIES} entries")));
    };
    *room = left;
    for &(key, value) in dictionary {
        let Some(key) = pickle.text(key) else { continue };
        let name = format!("{prefix}{key}");
        if let Some(description) = Description::of(pickle, value) {
            found.push((name, description));
        } else if let (Some(inner), 1..) = (pickle.dictionary(value), depth) {
            collect(pickle, inner, &format!("{name}."), (depth - 1, room), found)?;
        }
    }
    Ok(())
}

/// The bytes of an archive's entry, at most `limit` of them.
fn entry(archive: &mut Archive<'_>, name: &str, limit: u64) -> Result<Vec<u8>> {
    let broken = |error: &dyn std::fmt::Display| Error::Model(format!("{name}: {error}"));
    let file = archive.by_name(name).map_err(|error| broken(&error))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| broken(&error))?;
    if bytes.len() as u64 > limit {
        return Err(broken(&format!("more than {limit} bytes")));
    }
    Ok(bytes)
}
