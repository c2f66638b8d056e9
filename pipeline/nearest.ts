/** "Did you mean": the known name that a mistyped one is closest to. */

const MAX_LENGTH = 40; // the rest of an absurdly long name does not matter

/**
 * The name with the smallest edit distance, ignoring case.
 *
 * @param name What was typed.
 * @param names At least one.
 */
export function nearest(name: string, names: readonly string[]): string {
  const typed = name.slice(0, MAX_LENGTH).toLowerCase();
  const costs = names.map((known) => editDistance(typed, known.toLowerCase()));
  return names[costs.indexOf(Math.min(...costs))] ?? "";
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = [...Array(b.length + 1).keys()];
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = row[j - 1]! + Number(a[i - 1] !== b[j - 1]);
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, replace));
    }
    row = next;
  }
  return row[b.length]!;
}
