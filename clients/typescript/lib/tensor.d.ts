/** Tensors as they travel: a shape and flat numbers, packed into base64 without a change of a bit. */
export type Numbers = Float32Array | Float64Array | Int8Array | Int16Array | Int32Array | BigInt64Array | Uint8Array | Uint16Array;
export type DType = "bool" | "uint8" | "int8" | "int16" | "int32" | "int64" | "float16" | "bfloat16" | "float32" | "float64";
/** A number, or rectangular nested arrays of numbers or booleans. */
export type Nested = number | boolean | readonly Nested[];
/** A tensor in JSON. */
export interface Packed {
    dtype: DType;
    shape: number[];
    data: string;
}
export declare class Tensor {
    /** The elements, row by row. */
    readonly data: Numbers;
    readonly shape: readonly number[];
    readonly dtype: DType;
    /** The shape is that of a vector, and the dtype that of the array, unless they are given. */
    constructor(data: Numbers, shape?: readonly number[], dtype?: DType);
    /** Make a tensor of a number or nested arrays. */
    static of(values: Nested, dtype?: Exclude<DType, "float16" | "bfloat16">): Tensor;
    /** Read a tensor out of JSON. A bare number, as a reduced value is, has shape `[]`; `null` is NaN. */
    static from(json: Packed | number | null, dtype?: DType): Tensor;
    /** What `JSON.stringify` makes of it. */
    toJSON(): Packed;
    /** The elements as plain numbers. */
    numbers(): number[];
    /** The one element there is. */
    item(): number;
    /** The elements as nested arrays, or as a number where the shape is `[]`. */
    nested(): any;
}
