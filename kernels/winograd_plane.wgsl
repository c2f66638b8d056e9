// What the Winograd kernels have in common: their source follows.
// Where the 4x4 transformed numbers of a tile or kernel lie among the 16 planes: those of rows and columns 0, 1
// and 3 come first, since of an image that was doubled the others are 0.
fn plane(row: u32, column: u32) -> u32 {
  let r = select(row, 5u - row, row > 1u); // 2 and 3 change places
  let c = select(column, 5u - column, column > 1u);
  return select(select(12u + c, 9u + r, r < 3u), 3u * r + c, r < 3u && c < 3u);
}

// The same in the transform of the flipped kernel, where 0 and 3 change places.
fn flipped(row: u32, column: u32) -> u32 {
  return plane(
    select(row, 3u - row, row == 0u || row == 3u),
    select(column, 3u - column, column == 0u || column == 3u),
  );
}
