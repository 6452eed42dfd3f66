package lossd;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The result of evaluating a loss. The value has shape {@code []} for {@code mean} and {@code sum}, where NaN stands for any
 * non-finite value, which {@code nonfinite} counts. {@code aux} has diagnostics, such as {@code iou} for a box loss.
 * {@code divisor} is what a mean divides by unless the request has {@code divide_by}; null under {@code none}, or if it is not
 * finite.
 */
public record Evaluation(
    String loss,
    Tensor value,
    Map<String, Tensor> gradients,
    Map<String, Tensor> aux,
    Double divisor,
    String reduction,
    String dtype,
    String device,
    Map<String, Object> nonfinite) {

  static Evaluation from(Map<String, Object> json) {
    String dtype = (String) json.get("dtype");
    return new Evaluation(
        (String) json.get("loss"),
        Tensor.from(json.get("value"), dtype),
        tensors(json.get("gradients"), dtype),
        tensors(json.get("aux"), dtype),
        (Double) json.get("divisor"),
        (String) json.get("reduction"),
        dtype,
        (String) json.get("device"),
        Json.map(json.get("nonfinite")));
  }

  private static Map<String, Tensor> tensors(Object json, String dtype) {
    Map<String, Tensor> found = new LinkedHashMap<>();
    Json.map(json).forEach((name, tensor) -> found.put(name, Tensor.from(tensor, dtype)));
    return found;
  }

  /**
   * The result of one item: its evaluation, or its problem. {@code line} is its number in a stream, from 1, if the server
   * gives it. An id is a String, a Long or a Double.
   */
  public record Result(Object id, Long line, Evaluation evaluation, Problem problem) {
    static Result from(Map<String, Object> json) {
      Long line = (Long) json.get("line");
      if ("ok".equals(json.get("status"))) return new Result(json.get("id"), line, Evaluation.from(json), null);
      Problem problem = new Problem(Json.map(json.get("error")), null, Duration.ZERO);
      return new Result(json.get("id"), line, null, problem);
    }

    public boolean ok() {
      return problem == null;
    }
  }

  /** The results of a batch, in the order of its items; {@code summary} has the count and the mean of each loss. */
  public record Batch(List<Result> results, long succeeded, long failed, Map<String, Object> summary) {
    static Batch from(Map<String, Object> json) {
      List<Result> results = Json.list(json.get("results")).stream().map(Json::map).map(Result::from).toList();
      return new Batch(results, (Long) json.get("succeeded"), (Long) json.get("failed"), Json.map(json.get("summary")));
    }
  }
}
