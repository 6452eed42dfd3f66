package lossd;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What to evaluate. Tensors are of type {@link Tensor}, or a number, or lists or arrays of numbers or booleans, which are
 * read in the dtype that the loss takes. Each method returns a new request.
 */
public final class Request {
  final Map<String, Object> fields;

  private Request(Map<String, Object> fields) {
    this.fields = fields;
  }

  public static Request of(Map<String, ?> inputs) {
    return defaults().with("inputs", inputs);
  }

  /** A request without inputs, for the defaults of a batch. */
  public static Request defaults() {
    return new Request(Map.of("encoding", "base64"));
  }

  public Request params(Map<String, ?> params) {
    return with("params", params);
  }

  /** {@code mean} (the default), {@code sum} or {@code none}. */
  public Request reduction(String reduction) {
    return with("reduction", reduction);
  }

  public Request sampleWeight(Object tensor) {
    return with("sample_weight", tensor);
  }

  /** Whether to return the gradients of all predictions; the default is true. */
  public Request gradients(boolean wanted) {
    return with("gradients", wanted);
  }

  /** The inputs whose gradients to return. */
  public Request gradients(String... inputs) {
    return with("gradients", List.of(inputs));
  }

  public Request gradOutput(Object tensor) {
    return with("grad_output", tensor);
  }

  /** {@code float32} (the default), {@code float64}, {@code float16} or {@code bfloat16}. */
  public Request dtype(String dtype) {
    return with("dtype", dtype);
  }

  /** What takes the place of the divisor of a mean, so that the shards of a batch add up to its mean. */
  public Request divideBy(double number) {
    return with("divide_by", number);
  }

  /** This request as one of a batch or a stream; the id, a string, a number or null, is returned with the result. */
  public Item item(Object id, String loss) {
    return new Item(id, loss, this);
  }

  /** One request of a batch or a stream. */
  public record Item(Object id, String loss, Request request) {
    Map<String, Object> json() {
      Request named = request.with("loss", loss);
      return id == null ? named.fields : named.with("id", id).fields;
    }
  }

  private Request with(String name, Object value) {
    Map<String, Object> more = new LinkedHashMap<>(fields);
    more.put(name, value);
    return new Request(more);
  }
}
