// One of Apache Kafka's tools, run again and again in one JVM: a line of standard input is the
// arguments of one run, and `== LINE` stands before what it prints. Ends where a run fails.
//
//   java -cp 'kafka/*' Repeated.java org.apache.kafka.tools.TransactionsCommand < lines

import java.lang.reflect.InvocationTargetException;
import java.util.*;
import org.apache.kafka.common.utils.Exit;

public class Repeated {
    static class Ended extends RuntimeException {
        final int status;

        Ended(int status) {
            this.status = status;
        }
    }

    public static void main(String[] arguments) throws Exception {
        var tool = Class.forName(arguments[0]).getMethod("main", String[].class);
        Exit.setExitProcedure((status, message) -> { throw new Ended(status); });
        Scanner lines = new Scanner(System.in);
        while (lines.hasNextLine()) {
            String line = lines.nextLine();
            System.out.println("== " + line);
            try {
                tool.invoke(null, (Object) line.split(" "));
            } catch (InvocationTargetException error) {
                if (!(error.getCause() instanceof Ended ended)) throw error;
                if (ended.status != 0) System.exit(ended.status);
            }
        }
    }
}
