/** Tensors: a shape and flat numbers, packed bit for bit into base64. */

export type Numbers =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array;

export type DType =
  | "bool"
  | "uint8"
  | "int8"
  | "int16"
  | "int32"
  | "int64"
  | "float16"
  | "bfloat16"
  | "float32"
  | "float64";

/** A number, or rectangular nested arrays of numbers or booleans. */
export type Nested = number | boolean | readonly Nested[];

/** A tensor in JSON. */
export interface Packed {
  dtype: DType;
  shape: number[];
  data: string;
}

/** `float16` and `bfloat16` are stored as their bits, because JavaScript has no such numbers. */
const ARRAYS = {
  bool: Uint8Array,
  uint8: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
};

export class Tensor {
  /** The elements, row by row. */
  readonly data: Numbers;
  readonly shape: readonly number[];
  readonly dtype: DType;

  /** By default the shape is that of a vector, and the dtype that of the array. */
  constructor(data: Numbers, shape: readonly number[] = [data.length], dtype: DType = dtypeOf(data)) {
    const size = shape.reduce((product, length) => product * length, 1);
    if (size !== data.length) throw new RangeError(`Expected ${size} numbers for [${shape}]; got ${data.length}.`);
    if (!(data instanceof ARRAYS[dtype])) throw new TypeError(`Expected ${ARRAYS[dtype].name} for ${dtype}.`);
    this.data = data;
    this.shape = shape;
    this.dtype = dtype;
  }

  /** Create a tensor from a number or nested arrays. */
  static of(values: Nested, dtype: Exclude<DType, "float16" | "bfloat16"> = "float32"): Tensor {
    const shape: number[] = [];
    for (let inner = values; Array.isArray(inner); inner = inner[0]) shape.push(inner.length);
    const flat = ([values] as unknown[]).flat(Infinity) as (number | boolean)[];
    if (dtype === "int64") return new Tensor(BigInt64Array.from(flat, BigInt), shape);
    return new Tensor(new ARRAYS[dtype](flat.map(Number)), shape, dtype);
  }

  /** Read a tensor from JSON. A bare number, such as a reduced value, has shape `[]`; `null` is NaN. */
  static from(json: Packed | number | null, dtype: DType = "float32"): Tensor {
    if (json === null || typeof json === "number") {
      return new Tensor((dtype === "float64" ? Float64Array : Float32Array).of(json ?? NaN), []);
    }
    const array = ARRAYS[json.dtype];
    const letters = atob(json.data);
    const bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    return new Tensor(new array(bytes.buffer), json.shape, json.dtype);
  }

  /** The value for `JSON.stringify`. */
  toJSON(): Packed {
    const { buffer, byteOffset, byteLength } = this.data;
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    const parts: string[] = [];
    // functions take only some ten thousand arguments
    for (let from = 0; from < bytes.length; from += 8192) {
      parts.push(String.fromCharCode.apply(null, bytes.subarray(from, from + 8192) as unknown as number[]));
    }
    return { dtype: this.dtype, shape: [...this.shape], data: btoa(parts.join("")) };
  }

  /** The elements as plain numbers. */
  numbers(): number[] {
    if (this.dtype === "float16") return Array.from(this.data as Uint16Array, fromFloat16);
    if (this.dtype === "bfloat16") return Array.from(this.data as Uint16Array, fromBfloat16);
    return Array.from(this.data as ArrayLike<number | bigint>, Number);
  }

  /** The only element. */
  item(): number {
    if (this.data.length !== 1) throw new RangeError(`Expected one element; got [${this.shape}].`);
    return this.numbers()[0]!;
  }

  /** The elements as nested arrays, or as a number if the shape is `[]`. */
  nested(): any {
    const numbers = this.numbers().values();
    const rows = ([length, ...inner]: readonly number[]): any =>
      length === undefined ? numbers.next().value : Array.from({ length }, () => rows(inner));
    return rows(this.shape);
  }
}

function dtypeOf(data: Numbers): DType {
  if (data instanceof Float32Array) return "float32";
  if (data instanceof Float64Array) return "float64";
  if (data instanceof BigInt64Array) return "int64";
  if (data instanceof Int32Array) return "int32";
  if (data instanceof Int16Array) return "int16";
  if (data instanceof Int8Array) return "int8";
  if (data instanceof Uint8Array) return "uint8";
  throw new TypeError("Expected a dtype beside a Uint16Array, float16 or bfloat16.");
}

function fromFloat16(bits: number): number {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size =
    exponent === 31 ? (fraction ? NaN : Infinity)
    : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024)
    : 2 ** -24 * fraction;
  return bits & 0x8000 ? -size : size;
}

function fromBfloat16(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!;
}
