// Arrays as `numpy.save` writes them: enough of the format to show and to choose rows.

const READERS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, b1: Uint8Array, i8: BigInt64Array, u8: BigUint64Array,
};

/** The shape and the rows of an array: `{shape, row(index)}`; null where it is of another kind. */
export function readNpy(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 12 || new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, 6)) !== "\x93NUMPY") return null;
  const isFirst = view.getUint8(6) === 1;
  const begin = isFirst ? 10 : 12;
  const length = isFirst ? view.getUint16(8, true) : view.getUint32(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, begin, length));
  const type = /'descr':\s*'[<|]?(\w\d)'/.exec(header)?.[1];
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1].split(",").filter((part) => part.trim()).map(Number);
  if (!READERS[type] || !shape?.length || /'fortran_order':\s*True/.test(header)) return null;
  const numbers = new READERS[type](buffer.slice(begin + length));
  const size = shape.slice(1).reduce((product, side) => product * side, 1);
  return { shape, row: (index) => Array.from(numbers.subarray(index * size, (index + 1) * size), Number) };
}
