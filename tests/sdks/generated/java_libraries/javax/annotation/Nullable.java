package javax.annotation;

/** JSR 305's, which generated code names. */
public @interface Nullable {}
