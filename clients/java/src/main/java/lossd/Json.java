package lossd;

import java.lang.reflect.Array;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** JSON to and from maps, lists, strings, numbers and booleans, because Java has no parser. */
final class Json {
  private final String text;
  private int at;

  private Json(String text) {
    this.text = text;
  }

  static String write(Object value) {
    StringBuilder into = new StringBuilder();
    write(value, into);
    return into.toString();
  }

  private static void write(Object value, StringBuilder into) {
    if (value == null || value instanceof Boolean) {
      into.append(value);
    } else if (value instanceof Number number) {
      if (!Double.isFinite(number.doubleValue())) {
        throw new IllegalArgumentException("JSON has no " + number + "; send a Tensor");
      }
      into.append(number);
    } else if (value instanceof CharSequence string) {
      quote(string, into);
    } else if (value instanceof Tensor tensor) {
      write(tensor.json(), into);
    } else if (value instanceof Map<?, ?> map) {
      String comma = "{";
      for (Map.Entry<?, ?> entry : map.entrySet()) {
        into.append(comma);
        quote((String) entry.getKey(), into);
        write(entry.getValue(), into.append(':'));
        comma = ",";
      }
      into.append(map.isEmpty() ? "{}" : "}");
    } else if (value instanceof Iterable<?> elements) {
      into.append('[');
      String comma = "";
      for (Object element : elements) {
        write(element, into.append(comma));
        comma = ",";
      }
      into.append(']');
    } else if (value.getClass().isArray()) {
      into.append('[');
      for (int i = 0; i < Array.getLength(value); i++) write(Array.get(value, i), i == 0 ? into : into.append(','));
      into.append(']');
    } else {
      throw new IllegalArgumentException("JSON has no " + value.getClass());
    }
  }

  private static void quote(CharSequence string, StringBuilder into) {
    into.append('"');
    for (int i = 0; i < string.length(); i++) {
      char letter = string.charAt(i);
      if (letter == '"' || letter == '\\') into.append('\\').append(letter);
      else if (letter < ' ') into.append(String.format("\\u%04x", (int) letter));
      else into.append(letter);
    }
    into.append('"');
  }

  /** Parse one document. Whole numbers are longs, others doubles. */
  static Object parse(String text) {
    Json json = new Json(text);
    Object value = json.value();
    if (json.next() != 0) throw json.unexpected();
    return value;
  }

  @SuppressWarnings("unchecked")
  static Map<String, Object> map(Object value) {
    return value == null ? Map.of() : (Map<String, Object>) value;
  }

  @SuppressWarnings("unchecked")
  static List<Object> list(Object value) {
    return value == null ? List.of() : (List<Object>) value;
  }

  private Object value() {
    char first = next();
    if (first == '{') return object();
    if (first == '[') return array();
    if (first == '"') return string();
    int start = at;
    while (at < text.length() && ",]} \t\r\n".indexOf(text.charAt(at)) < 0) at++;
    return word(text.substring(start, at));
  }

  private static Object word(String word) {
    return switch (word) {
      case "null" -> null;
      case "true", "false" -> word.equals("true");
      default -> word.matches("-?[1-9]\\d{0,17}|0") ? (Object) Long.valueOf(word) : (Object) Double.valueOf(word);
    };
  }

  private Map<String, Object> object() {
    Map<String, Object> found = new LinkedHashMap<>();
    for (at++; next() != '}'; comma('}')) {
      if (next() != '"') throw unexpected();
      String name = string();
      expect(':');
      found.put(name, value());
    }
    at++;
    return found;
  }

  private List<Object> array() {
    List<Object> found = new ArrayList<>();
    for (at++; next() != ']'; comma(']')) found.add(value());
    at++;
    return found;
  }

  private String string() {
    int end = ++at;
    while (end < text.length() && text.charAt(end) != '"' && text.charAt(end) != '\\') end++;
    StringBuilder found = new StringBuilder().append(text, at, end);
    for (at = end; at < text.length() && text.charAt(at) != '"'; at++) {
      char letter = text.charAt(at);
      if (letter != '\\') {
        found.append(letter);
        continue;
      }
      letter = text.charAt(++at);
      int place = "bfnrt".indexOf(letter);
      if (letter == 'u') {
        found.append((char) Integer.parseInt(text.substring(at + 1, at += 5), 16));
        at--;
      } else {
        found.append(place < 0 ? letter : "\b\f\n\r\t".charAt(place));
      }
    }
    at++;
    return found.toString();
  }

  /** Return the next character that is not white space, 0 at the end. */
  private char next() {
    while (at < text.length() && " \t\r\n".indexOf(text.charAt(at)) >= 0) at++;
    return at < text.length() ? text.charAt(at) : 0;
  }

  private void comma(char end) {
    if (next() != end) expect(',');
  }

  private void expect(char letter) {
    if (next() != letter) throw unexpected();
    at++;
  }

  private IllegalArgumentException unexpected() {
    return new IllegalArgumentException("Expected JSON; got another thing at character " + at);
  }
}
