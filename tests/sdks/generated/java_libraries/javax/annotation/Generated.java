package javax.annotation;

/** Jakarta's, which generated code names. */
public @interface Generated {
  String[] value();

  String date() default "";

  String comments() default "";
}
