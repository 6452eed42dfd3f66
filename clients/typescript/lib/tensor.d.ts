/** Tensors: a shape and flat numbers, packed bit for bit into base64. */
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
    /** By default the shape is that of a vector, and the dtype that of the array. */
    constructor(data: Numbers, shape?: readonly number[], dtype?: DType);
    /** Create a tensor from a number or nested arrays. */
    static of(values: Nested, dtype?: Exclude<DType, "float16" | "bfloat16">): Tensor;
    /** Read a tensor from JSON. A bare number, such as a reduced value, has shape `[]`; `null` is NaN. */
    static from(json: Packed | number | null, dtype?: DType): Tensor;
    /** The value for `JSON.stringify`. */
    toJSON(): Packed;
    /** The elements as plain numbers. */
    numbers(): number[];
    /** The only element. */
    item(): number;
    /** The elements as nested arrays, or as a number if the shape is `[]`. */
    nested(): any;
}
