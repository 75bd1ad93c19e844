// Rows that are square pictures, drawn; and which rows are.

/** The side of the picture that a row of this shape is; null where it is none. */
export function sideOf(shape) {
  const size = shape.reduce((product, length) => product * length, 1);
  const side = Math.sqrt(size);
  const isFlat = shape.length === 1 || shape.filter((length) => length > 1).every((length) => length === side);
  return isFlat && Number.isInteger(side) && side >= 4 ? side : null;
}

/** Draw the numbers of a row on a canvas: the least is paper, the greatest ink. */
export function drawRow(canvas, numbers, side) {
  canvas.width = side;
  canvas.height = side;
  const least = Math.min(...numbers);
  const span = Math.max(...numbers) - least || 1;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  numbers.forEach((value, place) => {
    const grey = 255 - Math.round((255 * (value - least)) / span);
    image.data.set([grey, grey, grey, 255], 4 * place);
  });
  context.putImageData(image, 0, 0);
}
