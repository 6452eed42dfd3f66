package lossd;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import java.util.stream.IntStream;

/** A shape and flat numbers, packed row by row, little-endian. */
public final class Tensor {
  private final String dtype;
  private final int[] shape;
  private final byte[] data;

  private Tensor(String dtype, int[] shape, byte[] data) {
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
    long elements = 1;
    for (int length : shape) elements *= length;
    if (elements * size(dtype) != data.length) {
      String found = data.length / size(dtype) + " numbers";
      throw new IllegalArgumentException("Expected " + elements + " for " + Arrays.toString(shape) + "; got " + found);
    }
  }

  /** A tensor of float32; without a shape, a vector. {@code new int[0]} is the shape of a single number. */
  public static Tensor of(float[] numbers, int... shape) {
    ByteBuffer buffer = room(numbers.length, 4);
    buffer.asFloatBuffer().put(numbers);
    return made("float32", numbers.length, shape, buffer);
  }

  /** A tensor of float64. */
  public static Tensor of(double[] numbers, int... shape) {
    ByteBuffer buffer = room(numbers.length, 8);
    buffer.asDoubleBuffer().put(numbers);
    return made("float64", numbers.length, shape, buffer);
  }

  /** A tensor of int64. */
  public static Tensor of(long[] numbers, int... shape) {
    ByteBuffer buffer = room(numbers.length, 8);
    buffer.asLongBuffer().put(numbers);
    return made("int64", numbers.length, shape, buffer);
  }

  /** A tensor of int32. */
  public static Tensor of(int[] numbers, int[] shape) {
    ByteBuffer buffer = room(numbers.length, 4);
    buffer.asIntBuffer().put(numbers);
    return new Tensor("int32", shape.clone(), buffer.array());
  }

  /** A tensor of bool. */
  public static Tensor of(boolean[] marks, int... shape) {
    ByteBuffer buffer = room(marks.length, 1);
    for (boolean mark : marks) buffer.put((byte) (mark ? 1 : 0));
    return made("bool", marks.length, shape, buffer);
  }

  /** A single float64. */
  public static Tensor scalar(double number) {
    return new Tensor("float64", new int[0], room(1, 8).putDouble(number).array());
  }

  /** A single float32. */
  public static Tensor scalar(float number) {
    return new Tensor("float32", new int[0], room(1, 4).putFloat(number).array());
  }

  /** A tensor of any dtype, including float16 and bfloat16, from its bytes. */
  public static Tensor packed(String dtype, int[] shape, byte[] littleEndian) {
    return new Tensor(dtype, shape.clone(), littleEndian.clone());
  }

  private static ByteBuffer room(int count, int size) {
    return ByteBuffer.allocate(count * size).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static Tensor made(String dtype, int count, int[] shape, ByteBuffer buffer) {
    return new Tensor(dtype, shape.length == 0 ? new int[] {count} : shape.clone(), buffer.array());
  }

  /** Read a tensor from JSON: an object, or a number in the dtype of the answer; null is NaN. */
  static Tensor from(Object json, String dtype) {
    if (json instanceof Map<?, ?> packed) {
      int[] shape = Json.list(packed.get("shape")).stream().mapToInt(length -> ((Number) length).intValue()).toArray();
      return new Tensor((String) packed.get("dtype"), shape, Base64.getDecoder().decode((String) packed.get("data")));
    }
    double number = json == null ? Double.NaN : ((Number) json).doubleValue();
    return dtype.equals("float64") ? scalar(number) : scalar((float) number);
  }

  Map<String, Object> json() {
    return Map.of("dtype", dtype, "shape", shape, "data", Base64.getEncoder().encodeToString(data));
  }

  public String dtype() {
    return dtype;
  }

  public int[] shape() {
    return shape.clone();
  }

  /** The elements' bytes, little-endian. */
  public byte[] bytes() {
    return data.clone();
  }

  /** The elements of a tensor of float32. */
  public float[] floats() {
    float[] numbers = new float[expect("float32")];
    buffer().asFloatBuffer().get(numbers);
    return numbers;
  }

  /** The elements of a tensor of int64. */
  public long[] longs() {
    long[] numbers = new long[expect("int64")];
    buffer().asLongBuffer().get(numbers);
    return numbers;
  }

  /** The elements, whatever their dtype. */
  public double[] doubles() {
    ByteBuffer buffer = buffer();
    int size = size(dtype);
    return IntStream.range(0, data.length / size).mapToDouble(i -> element(buffer, i * size)).toArray();
  }

  /** The only element. */
  public double item() {
    if (data.length != size(dtype)) throw new IllegalStateException("Expected one element; got " + this);
    return element(buffer(), 0);
  }

  private double element(ByteBuffer buffer, int at) {
    return switch (dtype) {
      case "bool", "uint8" -> buffer.get(at) & 255;
      case "int8" -> buffer.get(at);
      case "int16" -> buffer.getShort(at);
      case "int32" -> buffer.getInt(at);
      case "int64" -> buffer.getLong(at);
      case "float16" -> fromFloat16(buffer.getShort(at));
      case "bfloat16" -> Float.intBitsToFloat(buffer.getShort(at) << 16);
      case "float32" -> buffer.getFloat(at);
      default -> buffer.getDouble(at);
    };
  }

  private static double fromFloat16(short bits) {
    int exponent = bits >> 10 & 31;
    int fraction = bits & 1023;
    double size =
        exponent == 31
            ? (fraction == 0 ? Double.POSITIVE_INFINITY : Double.NaN)
            : exponent == 0 ? Math.scalb(fraction, -24) : Math.scalb(1 + fraction / 1024.0, exponent - 15);
    return bits < 0 ? -size : size;
  }

  private static int size(String dtype) {
    return switch (dtype) {
      case "bool", "uint8", "int8" -> 1;
      case "int16", "float16", "bfloat16" -> 2;
      case "int32", "float32" -> 4;
      case "int64", "float64" -> 8;
      default -> throw new IllegalArgumentException("There is no dtype " + dtype);
    };
  }

  private int expect(String wanted) {
    if (!dtype.equals(wanted)) throw new IllegalStateException("Expected a tensor of " + wanted + "; got " + this);
    return data.length / size(dtype);
  }

  private ByteBuffer buffer() {
    return ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Whether dtype, shape and every bit are the same. */
  @Override
  public boolean equals(Object other) {
    return other instanceof Tensor tensor
        && dtype.equals(tensor.dtype)
        && Arrays.equals(shape, tensor.shape)
        && Arrays.equals(data, tensor.data);
  }

  @Override
  public int hashCode() {
    return 31 * Arrays.hashCode(shape) + Arrays.hashCode(data);
  }

  @Override
  public String toString() {
    return dtype + Arrays.toString(shape) + (data.length > 800 ? "" : Arrays.toString(doubles()));
  }
}
