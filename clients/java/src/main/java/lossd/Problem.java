package lossd;

import java.io.IOException;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.Collectors;

/** The problem with a refused request (RFC 9457). */
public final class Problem extends IOException {
  private static final long serialVersionUID = 1;

  /** One thing in a request that must be changed, at a JSON Pointer such as {@code /inputs/targets/3}. */
  public record Fault(String pointer, String code, String detail) {}

  private final transient Map<String, Object> document;
  private final String requestId;
  private final Duration retryAfter;

  Problem(Map<String, Object> document, String requestId, Duration retryAfter) {
    super(message(document));
    this.document = document;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }

  /** Read the problem from an answer, which a proxy may have written. */
  static Problem of(HttpResponse<String> response) {
    String type = response.headers().firstValue("Content-Type").orElse("");
    String body = response.body();
    Map<String, Object> document =
        Map.of("status", response.statusCode(), "title", "HTTP status " + response.statusCode(), "detail", body);
    try {
      if (type.contains("json")) document = Json.map(Json.parse(body));
    } catch (RuntimeException noJson) {
      // use the body as the detail
    }
    String requestId = response.headers().firstValue("X-Request-ID").orElse(null);
    return new Problem(document, requestId, retryAfter(response.headers().firstValue("Retry-After").orElse("")));
  }

  private static String message(Map<String, Object> document) {
    String faults = faults(document).stream().map(f -> "\n" + f.pointer + ": " + f.detail).collect(Collectors.joining());
    return document.get("status") + ": " + document.getOrDefault("detail", document.get("title")) + faults;
  }

  private static List<Fault> faults(Map<String, Object> document) {
    return Json.list(document.get("errors")).stream().map(Json::map).map(Problem::fault).toList();
  }

  private static Fault fault(Map<String, Object> fault) {
    return new Fault((String) fault.get("pointer"), (String) fault.get("code"), (String) fault.get("detail"));
  }

  private static Duration retryAfter(String header) {
    if (header.matches("\\d{1,9}")) return Duration.ofSeconds(Long.parseLong(header));
    try {
      ZonedDateTime date = ZonedDateTime.parse(header, DateTimeFormatter.RFC_1123_DATE_TIME);
      Duration until = Duration.between(ZonedDateTime.now(), date);
      return until.isNegative() ? Duration.ZERO : until;
    } catch (DateTimeParseException noDate) {
      return Duration.ZERO;
    }
  }

  public int status() {
    return document.get("status") instanceof Number status ? status.intValue() : 0;
  }

  public String type() {
    return (String) document.getOrDefault("type", "about:blank");
  }

  public String title() {
    return (String) document.get("title");
  }

  public String detail() {
    return (String) document.get("detail");
  }

  public String instance() {
    return (String) document.get("instance");
  }

  public List<Fault> errors() {
    return faults(document);
  }

  /** The {@code X-Request-ID} of the answer, by which the request is found in the server's log; null in a batch. */
  public String requestId() {
    return requestId;
  }

  /** The time after which to retry, zero if the server does not give it. */
  public Duration retryAfter() {
    return retryAfter;
  }

  /** Whether the same request may succeed later. */
  public boolean busy() {
    return status() == 429 || status() == 503;
  }

  /** The server's Retry-After, and a random delay that grows with each attempt. */
  Duration pause(int attempt) {
    long most = Math.min(10_000, 250L << Math.min(attempt, 10));
    return retryAfter.plusMillis(ThreadLocalRandom.current().nextLong(most));
  }
}
