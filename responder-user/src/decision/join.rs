//! Two sorted maps side by side.

use std::{cmp::Ordering, collections::BTreeMap};

/// Every key of either map, in order, with what each has for it. One pass over both: with ten thousand addresses, looking
/// each up takes several times as long.
pub(super) fn join<'a, K: Ord, A, B>(
    left: &'a BTreeMap<K, A>,
    right: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = (&'a K, Option<&'a A>, Option<&'a B>)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((l, _)), Some((r, _))) => l.cmp(r),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let l = if order.is_le() { left.next() } else { None };
        let r = if order.is_ge() { right.next() } else { None };
        let key = l.map(|(key, _)| key).or(r.map(|(key, _)| key))?;
        Some((key, l.map(|(_, value)| value), r.map(|(_, value)| value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_once_in_order() {
        let left: BTreeMap<u8, char> = [(1, 'a'), (3, 'b'), (4, 'c')].into();
        let right: BTreeMap<u8, bool> = [(0, true), (3, false), (9, true)].into();
        let joined: Vec<_> = join(&left, &right).map(|(k, l, r)| (*k, l.copied(), r.copied())).collect();
        let expected = [
            (0, None, Some(true)),
            (1, Some('a'), None),
            (3, Some('b'), Some(false)),
            (4, Some('c'), None),
            (9, None, Some(true)),
        ];
        assert_eq!(joined, expected);
        assert_eq!(join(&left, &BTreeMap::<u8, ()>::new()).count(), 3);
        assert_eq!(join(&BTreeMap::<u8, ()>::new(), &BTreeMap::<u8, ()>::new()).count(), 0);
    }
}
