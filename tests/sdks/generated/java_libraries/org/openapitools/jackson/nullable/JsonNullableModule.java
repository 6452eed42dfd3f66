package org.openapitools.jackson.nullable;

import com.fasterxml.jackson.core.Version;
import com.fasterxml.jackson.databind.BeanDescription;
import com.fasterxml.jackson.databind.DeserializationConfig;
import com.fasterxml.jackson.databind.DeserializationContext;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonDeserializer;
import com.fasterxml.jackson.databind.JsonSerializer;
import com.fasterxml.jackson.databind.Module;
import com.fasterxml.jackson.databind.SerializationConfig;
import com.fasterxml.jackson.databind.SerializerProvider;
import com.fasterxml.jackson.databind.deser.Deserializers;
import com.fasterxml.jackson.databind.deser.ValueInstantiator;
import com.fasterxml.jackson.databind.deser.std.ReferenceTypeDeserializer;
import com.fasterxml.jackson.databind.jsontype.TypeDeserializer;
import com.fasterxml.jackson.databind.jsontype.TypeSerializer;
import com.fasterxml.jackson.databind.ser.BeanPropertyWriter;
import com.fasterxml.jackson.databind.ser.BeanSerializerModifier;
import com.fasterxml.jackson.databind.ser.Serializers;
import com.fasterxml.jackson.databind.ser.std.ReferenceTypeSerializer;
import com.fasterxml.jackson.databind.type.ReferenceType;
import com.fasterxml.jackson.databind.type.TypeBindings;
import com.fasterxml.jackson.databind.type.TypeFactory;
import com.fasterxml.jackson.databind.type.TypeModifier;
import com.fasterxml.jackson.databind.util.NameTransformer;
import java.lang.reflect.Type;
import java.util.List;

/** Teach Jackson what a {@link JsonNullable} is: nothing where it is undefined, else its value. */
public final class JsonNullableModule extends Module {
  @Override
  public String getModuleName() {
    return "JsonNullableModule";
  }

  @Override
  public Version version() {
    return Version.unknownVersion();
  }

  @Override
  public void setupModule(SetupContext context) {
    context.addTypeModifier(new References());
    context.addSerializers(new Writers());
    context.addDeserializers(new Readers());
    context.addBeanSerializerModifier(new Absent());
  }

  private static final class References extends TypeModifier {
    @Override
    public JavaType modifyType(JavaType type, Type declared, TypeBindings bindings, TypeFactory factory) {
      if (type.isReferenceType() || type.getRawClass() != JsonNullable.class) return type;
      return ReferenceType.upgradeFrom(type, type.containedTypeOrUnknown(0));
    }
  }

  private static final class Writers extends Serializers.Base {
    @Override
    public JsonSerializer<?> findReferenceSerializer(
        SerializationConfig config, ReferenceType type, BeanDescription bean, TypeSerializer typed, JsonSerializer<Object> content) {
      return type.hasRawClass(JsonNullable.class) ? new Writer(type, typed, content) : null;
    }
  }

  private static final class Readers extends Deserializers.Base {
    @Override
    public JsonDeserializer<?> findReferenceDeserializer(
        ReferenceType type, DeserializationConfig config, BeanDescription bean, TypeDeserializer typed, JsonDeserializer<?> content) {
      return type.hasRawClass(JsonNullable.class) ? new Reader(type, null, typed, content) : null;
    }
  }

  private static final class Writer extends ReferenceTypeSerializer<JsonNullable<?>> {
    private static final long serialVersionUID = 1;

    Writer(ReferenceType type, TypeSerializer typed, JsonSerializer<Object> content) {
      super(type, true, typed, content);
    }

    private Writer(Writer base, com.fasterxml.jackson.databind.BeanProperty property, TypeSerializer typed,
        JsonSerializer<?> content, NameTransformer unwrapper, Object suppressed) {
      super(base, property, typed, content, unwrapper, suppressed, false);
    }

    @Override
    protected ReferenceTypeSerializer<JsonNullable<?>> withResolved(
        com.fasterxml.jackson.databind.BeanProperty property, TypeSerializer typed, JsonSerializer<?> content, NameTransformer unwrapper) {
      return new Writer(this, property, typed, content, unwrapper, _suppressableValue);
    }

    @Override
    public ReferenceTypeSerializer<JsonNullable<?>> withContentInclusion(Object suppressed, boolean suppressNulls) {
      return new Writer(this, _property, _valueTypeSerializer, _valueSerializer, _unwrapper, suppressed);
    }

    @Override
    public boolean isEmpty(SerializerProvider provider, JsonNullable<?> value) {
      return !value.isPresent();
    }

    @Override
    protected boolean _isValuePresent(JsonNullable<?> value) {
      return value.isPresent();
    }

    @Override
    protected Object _getReferenced(JsonNullable<?> value) {
      return value.get();
    }

    @Override
    protected Object _getReferencedIfPresent(JsonNullable<?> value) {
      return value.orElse(null);
    }
  }

  private static final class Reader extends ReferenceTypeDeserializer<JsonNullable<Object>> {
    private static final long serialVersionUID = 1;

    Reader(JavaType type, ValueInstantiator instantiator, TypeDeserializer typed, JsonDeserializer<?> content) {
      super(type, instantiator, typed, content);
    }

    @Override
    protected Reader withResolved(TypeDeserializer typed, JsonDeserializer<?> content) {
      return new Reader(_fullType, _valueInstantiator, typed, content);
    }

    @Override
    public JsonNullable<Object> getNullValue(DeserializationContext context) {
      return JsonNullable.of(null);
    }

    @Override
    public Object getAbsentValue(DeserializationContext context) {
      return JsonNullable.undefined();
    }

    @Override
    public JsonNullable<Object> referenceValue(Object contents) {
      return JsonNullable.of(contents);
    }

    @Override
    public Object getReferenced(JsonNullable<Object> reference) {
      return reference.get();
    }

    @Override
    public JsonNullable<Object> updateReference(JsonNullable<Object> reference, Object contents) {
      return JsonNullable.of(contents);
    }
  }

  /** Leaves out members that are undefined, whatever else is included. */
  private static final class Absent extends BeanSerializerModifier {
    private static final long serialVersionUID = 1;

    @Override
    public List<BeanPropertyWriter> changeProperties(
        SerializationConfig config, BeanDescription bean, List<BeanPropertyWriter> writers) {
      return writers.stream().map(w -> w.getType().hasRawClass(JsonNullable.class) ? new Unless(w) : w).toList();
    }
  }

  private static final class Unless extends BeanPropertyWriter {
    private static final long serialVersionUID = 1;

    Unless(BeanPropertyWriter base) {
      super(base);
    }

    @Override
    public void serializeAsField(Object bean, com.fasterxml.jackson.core.JsonGenerator into, SerializerProvider provider)
        throws Exception {
      if (get(bean) instanceof JsonNullable<?> value && value.isPresent()) super.serializeAsField(bean, into, provider);
    }
  }
}
