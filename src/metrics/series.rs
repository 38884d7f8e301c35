//! Series of one metric, one for each value of its label.

use crate::channel::Class;

/// Make a series for each class.
pub(super) fn by_class<T>(make: impl Fn(Class) -> T) -> [(Class, T); Class::ALL.len()] {
    std::array::from_fn(|n| (Class::ALL[n], make(Class::ALL[n])))
}

/// Return the handle of a key. The entries are few: walking over them is cheaper than hashing.
pub(super) fn of<K: PartialEq + Copy, V>(handles: &[(K, V)], key: K) -> Option<&V> {
    handles.iter().find(|(name, _)| *name == key).map(|(_, handle)| handle)
}
